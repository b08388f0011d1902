"""Train a small Iris classifier with TensorFlow (Keras 2) and save it as a SavedModel."""

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from tabulate import tabulate

CLASS_NAMES = ["setosa", "versicolor", "virginica"]


def parse_hyperparameters():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    return parser.parse_known_args()[0]


def read_data(directory, name):
    """Measures (n x 4) and class numbers (n) of a CSV file with a header line."""
    with (Path(directory) / name).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    values = np.array(rows, dtype=np.float32)
    return values[:, :4], values[:, 4].astype(np.int32)


def build_model(x_train, learning_rate):
    # The scaling is a part of the model, so that it takes centimetres when it serves.
    scale = tf.keras.layers.Normalization()
    scale.adapt(x_train)
    model = tf.keras.Sequential(
        [
            tf.keras.Input(shape=(4,), name="measures"),
            scale,
            tf.keras.layers.Dense(16, activation="relu"),
            tf.keras.layers.Dense(len(CLASS_NAMES), activation="softmax", name="probabilities"),
        ]
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def resume(model):
    """Load the newest checkpoint there is; the number of epochs that it has behind it."""
    for variable in ("EM_CHECKPOINT_INPUT_DIR", "EM_CHECKPOINT_DIR"):
        directory = os.environ.get(variable)
        newest = tf.train.latest_checkpoint(directory) if directory else None
        if newest:
            model.load_weights(newest)
            print(f"going on from {newest}")
            return int(Path(newest).name.split("-")[1].split(".")[0])
    return 0


def main():
    hyperparameters = parse_hyperparameters()
    tf.keras.utils.set_random_seed(7)
    x_train, y_train = read_data(os.environ.get("EM_DATASET_TRAIN"), "train.csv")
    model = build_model(x_train, hyperparameters.learning_rate)
    first_epoch = resume(model)

    callbacks = [
        tf.keras.callbacks.ModelCheckpoint(
            filepath=f"{os.environ.get('EM_CHECKPOINT_DIR')}/cp-{{epoch:04d}}.ckpt",
            save_weights_only=True,
            save_freq="epoch",
            period=50,
        ),
        tf.keras.callbacks.TensorBoard(log_dir=os.environ.get("EM_TENSORBOARD_LOG_DIR")),
    ]
    model.fit(
        x_train,
        y_train,
        batch_size=hyperparameters.batch_size,
        initial_epoch=first_epoch,
        epochs=hyperparameters.epochs,
        callbacks=callbacks,
        verbose=2,
    )

    predicted = model.predict(x_train, verbose=0).argmax(axis=1)
    table = [
        [name, int((y_train == number).sum()), f"{(predicted[y_train == number] == number).mean():.3f}"]
        for number, name in enumerate(CLASS_NAMES)
    ]
    print(tabulate(table, headers=["class", "flowers", "recognised"]))
    print(f"accuracy on the training data: {(predicted == y_train).mean():.3f}")
    model.save(os.environ.get("EM_MODEL_DIR"))


if __name__ == "__main__":
    main()
