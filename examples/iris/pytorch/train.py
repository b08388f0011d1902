"""Train a small Iris classifier with PyTorch and pack it into a `.mar` with its `config.properties`."""

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path

import torch
from model import IrisNetwork
from model_archiver import ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

CHECKPOINT_EVERY = 50


def parse_hyperparameters():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--model_name", default="iris")
    return parser.parse_known_args()[0]


def read_data(directory, name):
    """Measures (n x 4) and class numbers (n) of a CSV file with a header line."""
    with (Path(directory) / name).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    values = torch.tensor([[float(value) for value in row] for row in rows])
    return values[:, :4], values[:, 4].long()


def resume(network, optimizer):
    """Load the newest checkpoint there is; the number of epochs that it has behind it."""
    for variable in ("EM_CHECKPOINT_INPUT_DIR", "EM_CHECKPOINT_DIR"):
        found = sorted(Path(os.environ.get(variable) or os.devnull).glob("cp-*.pt"))
        if found:
            state = torch.load(found[-1], weights_only=True)
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            print(f"going on from {found[-1]}")
            return state["epoch"]
    return 0


def save_checkpoint(network, optimizer, epoch):
    directory = Path(os.environ["EM_CHECKPOINT_DIR"])
    directory.mkdir(parents=True, exist_ok=True)
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save(state, directory / f"cp-{epoch:04d}.pt")


def train(network, optimizer, x_train, y_train, hyperparameters):
    loader = DataLoader(TensorDataset(x_train, y_train), hyperparameters.batch_size, shuffle=True)
    loss_of = nn.CrossEntropyLoss()
    first_epoch = resume(network, optimizer)
    with SummaryWriter(os.environ.get("EM_TENSORBOARD_LOG_DIR")) as board:
        for epoch in range(first_epoch + 1, hyperparameters.epochs + 1):
            for measures, classes in loader:
                optimizer.zero_grad()
                loss_of(network(measures), classes).backward()
                optimizer.step()
            with torch.no_grad():
                scores = network(x_train)
            loss = loss_of(scores, y_train).item()
            accuracy = (scores.argmax(dim=1) == y_train).float().mean().item()
            board.add_scalar("loss", loss, epoch)
            board.add_scalar("accuracy", accuracy, epoch)
            if epoch % 10 == 0 or epoch == hyperparameters.epochs:
                print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.3f}")
            if epoch % CHECKPOINT_EVERY == 0:
                save_checkpoint(network, optimizer, epoch)


def export(network, model_name, directory):
    """Write `model-store/{model_name}.mar` and `config/config.properties`."""
    here = Path(__file__).parent
    (directory / "model-store").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / "weights.pt"
        torch.save(network.state_dict(), weights)
        ModelArchiver.generate_model_archive(
            ModelArchiverConfig(
                model_name=model_name,
                version="1.0",
                model_file=str(here / "model.py"),
                serialized_file=str(weights),
                handler=str(here / "handler.py"),
                export_path=str(directory / "model-store"),
                force=True,
            )
        )
    served = {model_name: {"1.0": {"defaultVersion": True, "marName": f"{model_name}.mar", "batchSize": 1}}}
    (directory / "config").mkdir(exist_ok=True)
    (directory / "config/config.properties").write_text(f"model_store=model-store\nmodels={json.dumps(served)}\n")


def main():
    hyperparameters = parse_hyperparameters()
    torch.manual_seed(7)
    x_train, y_train = read_data(os.environ.get("EM_DATASET_TRAIN"), "train.csv")
    network = IrisNetwork()
    network.mean.copy_(x_train.mean(dim=0))
    network.deviation.copy_(x_train.std(dim=0))
    optimizer = torch.optim.Adam(network.parameters(), lr=hyperparameters.learning_rate)
    train(network, optimizer, x_train, y_train, hyperparameters)
    export(network.eval(), hyperparameters.model_name, Path(os.environ["EM_MODEL_DIR"]))


if __name__ == "__main__":
    main()
