// Shows the platform's notices as notifications of JupyterLab. A federated extension in the form that JupyterLab loads (a container with
// `init` and `get`), written by hand: it has one module and needs no build.
(() => {
  const NAME = "modelyard-notices";
  const PERIOD_MILLISECONDS = 10000;
  let scope = {};

  const shared = async (name) => {
    const versions = scope[name] || {};
    const newest = Object.keys(versions).sort().pop();
    return newest ? (await versions[newest].get())() : undefined;
  };

  const activate = async (app) => {
    await app.restored; // what is told before would be counted at the bell and not shown
    const [{ Notification }, { PageConfig, URLExt }] = await Promise.all([
      shared("@jupyterlab/apputils"),
      shared("@jupyterlab/coreutils"),
    ]);
    const url = URLExt.join(PageConfig.getBaseUrl(), "modelyard/notices");
    const shown = new Map(); // id -> { text, key }
    const look = async () => {
      if (document.hidden) return;
      let notices;
      try {
        const answer = await fetch(url, { credentials: "same-origin" });
        if (!answer.ok) return;
        notices = (await answer.json()).notices;
      } catch {
        return; // the notebook is away for a moment; JupyterLab itself says so
      }
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
    setInterval(look, PERIOD_MILLISECONDS);
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (sharedScope) => {
      scope = sharedScope;
    },
    get: async () => () => ({
      __esModule: true,
      default: { id: `${NAME}:plugin`, description: "Shows notices of the platform.", autoStart: true, activate },
    }),
  };
})();
