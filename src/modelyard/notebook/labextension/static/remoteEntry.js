// The platform's part of JupyterLab's page: notices as notifications, what cells have put out while no page was there, and cells that wait for
// their kernel. A federated extension in the form that JupyterLab loads (a container with `init` and `get`), written by hand: it has one module and needs no build.
(() => {
  const NAME = "modelyard-notices";
  const NOTICES_MILLISECONDS = 10000;
  const OUTPUTS_MILLISECONDS = 1000;
  const REPLAY_MILLISECONDS = 3000;
  let scope = {};

  const shared = async (name) => {
    const versions = scope[name] || {};
    const newest = Object.keys(versions).sort().pop();
    return newest ? (await versions[newest].get())() : undefined;
  };

  // The platform's answer, or undefined while the notebook is away; JupyterLab itself says that.
  const ask = async (path) => {
    const { PageConfig, URLExt } = await shared("@jupyterlab/coreutils");
    try {
      const answer = await fetch(URLExt.join(PageConfig.getBaseUrl(), "modelyard", path), { credentials: "same-origin" });
      return answer.ok ? await answer.json() : undefined;
    } catch {
      return undefined;
    }
  };

  const showNotices = async () => {
    const { Notification } = await shared("@jupyterlab/apputils");
    const shown = new Map(); // id -> { text, key }
    const look = async () => {
      if (document.hidden) return;
      const notices = (await ask("notices"))?.notices;
      if (!notices) return;
      const present = new Set(notices.map((notice) => notice.id));
      for (const [id, { key }] of shown) {
        if (!present.has(id)) {
          Notification.dismiss(key);
          shown.delete(id);
        }
      }
      for (const { id, kind, text } of notices) {
        const known = shown.get(id);
        if (known && known.text === text) continue;
        if (known) Notification.dismiss(known.key);
        shown.set(id, { text, key: Notification.emit(text, kind === "warning" ? "warning" : "info", { autoClose: false }) });
      }
    };
    await look();
    setInterval(look, NOTICES_MILLISECONDS);
  };

  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // Outputs with one text for what a stream has printed in one go, for comparison.
  const joined = (outputs) => {
    const all = [];
    for (const output of outputs) {
      const last = all[all.length - 1];
      if (output.output_type !== "stream") all.push(output);
      else {
        const text = [output.text].flat().join("");
        if (last?.output_type === "stream" && last.name === output.name) last.text += text;
        else all.push({ output_type: "stream", name: output.name, text });
      }
    }
    return all;
  };

  // Makes a cell show these outputs: adds what is new where it can, so that what is there does not flicker.
  const show = (model, outputs) => {
    const wanted = joined(outputs);
    const present = joined(model.toJSON());
    const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
    let at = 0;
    while (at < present.length && at < wanted.length && same(present[at], wanted[at])) at += 1;
    if (at === present.length) wanted.slice(at).forEach((output) => model.add(output));
    else if (at === present.length - 1 && wanted[at]?.output_type === "stream" && present[at].name === wanted[at].name
      && wanted[at].text.startsWith(present[at].text)) {
      model.add({ ...wanted[at], text: wanted[at].text.slice(present[at].text.length) });
      wanted.slice(at + 1).forEach((output) => model.add(output));
    } else model.fromJSON(wanted);
  };

  const put = (cell, { outputs, count, isDone }) => {
    show(cell.model.outputs, outputs);
    if (count !== null && cell.model.executionCount !== count) cell.model.executionCount = count;
    cell.model.executionState = isDone ? "idle" : "running";
  };

  // Follows one kernel for one notebook until nothing that other pages have begun is running any more. What this page has begun itself comes
  // to it by its own connection; only after that was cut does the platform's word count, once all is there.
  const follow = async (panel, kernel, isReconnected) => {
    let version = 0;
    const waiting = new Map();
    do {
      const answer = await ask(`outputs/${kernel.id}?after=${version}`);
      if (panel.isDisposed || panel.sessionContext.session?.kernel?.id !== kernel.id) return;
      if (answer) version = answer.version;
      for (const record of answer?.cells ?? []) {
        const cell = panel.content.widgets.find((widget) => widget.model.type === "code" && widget.model.id === record.cell);
        const isOwn = record.session === kernel.clientId;
        if (!cell || (isOwn && !isReconnected)) waiting.delete(record.cell);
        else {
          if (!isOwn || record.isDone) put(cell, record);
          if (record.isDone) waiting.delete(record.cell);
          else waiting.set(record.cell, record);
        }
      }
      await pause(OUTPUTS_MILLISECONDS);
    } while (waiting.size > 0);
  };

  const watch = (panel) => {
    const known = new WeakSet();
    const look = async () => {
      const kernel = panel.sessionContext.session?.kernel;
      if (!kernel || known.has(kernel)) return;
      known.add(kernel);
      let wasAway = false;
      kernel.connectionStatusChanged.connect(async (_, status) => {
        if (status !== "connected") wasAway = true;
        else if (wasAway) {
          wasAway = false;
          await pause(REPLAY_MILLISECONDS); // first comes what Jupyter has kept for this connection
          await follow(panel, kernel, true);
        }
      });
      await panel.context.ready;
      await follow(panel, kernel, false);
    };
    panel.sessionContext.kernelChanged.connect(look);
    panel.sessionContext.ready.then(look, () => undefined);
  };

  // JupyterLab drops what it is told to run while its page has no kernel yet (its issue 8490): the cell looks as if nobody had asked. Here
  // it waits for the kernel, which is on its way.
  const runOnceThereIsAKernel = (runCell) => async (options) => {
    const { cell, sessionContext } = options;
    if (cell.model.type === "code" && sessionContext && !sessionContext.isReady && !sessionContext.session?.kernel) {
      cell.setPrompt("*");
      await sessionContext.ready.catch(() => undefined);
      if (cell.isDisposed) return false;
    }
    return runCell(options);
  };

  const notices = {
    id: `${NAME}:plugin`,
    description: "Shows notices of the platform.",
    autoStart: true,
    activate: (app) => {
      // What is told before the page is there would be counted at the bell and not shown. Not awaited: the page waits for its plugins in turn.
      app.restored.then(showNotices, () => undefined);
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (sharedScope) => {
      scope = sharedScope;
    },
    get: async () => {
      const { INotebookCellExecutor, INotebookTracker, runCell } = await shared("@jupyterlab/notebook");
      const executor = {
        id: `${NAME}:executor`,
        description: "Runs cells; while the kernel is on its way, they wait for it.",
        autoStart: true,
        provides: INotebookCellExecutor,
        activate: () => Object.freeze({ runCell: runOnceThereIsAKernel(runCell) }),
      };
      const outputs = {
        id: `${NAME}:outputs`,
        description: "Shows what cells have put out while no page was there.",
        autoStart: true,
        requires: [INotebookTracker],
        activate: (_, tracker) => {
          tracker.forEach(watch);
          tracker.widgetAdded.connect((_, panel) => watch(panel));
        },
      };
      return () => ({ __esModule: true, default: [notices, outputs, executor] });
    },
  };
})();
