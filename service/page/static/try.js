// Tries a model: asks the predictions API, waits, shows the pictures. The session's token says that it is this page that asks.
"use strict";

(() => {
  const form = document.getElementById("try");
  if (!form) return;
  const state = document.getElementById("try-state");
  const mistake = document.getElementById("try-mistake");
  const pictures = document.getElementById("try-pictures");
  const run = document.getElementById("try-run");
  const stop = document.getElementById("try-stop");
  const POLL_MILLISECONDS = 1000;
  const OVER = ["succeeded", "failed", "canceled"];
  let current = null;

  async function ask(path, body) {
    const headers = { "X-CSRF-Token": document.querySelector('meta[name="csrf-token"]').content };
    if (body) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail || `the service answered ${answer.status}`);
    return told;
  }

  function inputs() {
    const found = {};
    for (const field of form.querySelectorAll("[data-input]")) {
      const { input, kind } = field.dataset;
      if (kind === "flag") found[input] = field.checked;
      else if (field.value === "") continue;
      else if (kind === "number") found[input] = Number(field.value);
      else found[input] = kind === "choice" ? JSON.parse(field.value) : field.value;
    }
    return found;
  }

  function show(prediction, words) {
    const output = Array.isArray(prediction.output) ? prediction.output : [prediction.output];
    for (const address of output.filter(Boolean)) {
      const picture = document.createElement("img");
      picture.alt = words.prompt || "The picture that was drawn";
      picture.src = new URL(address, window.location.href).href;
      picture.addEventListener("error", () => { // of a store at another address, whose pictures this page may not show
        const link = document.createElement("a");
        link.href = picture.src;
        link.textContent = "Open the picture";
        picture.replaceWith(link);
      });
      pictures.prepend(picture);
    }
  }

  function busy(isBusy) {
    run.disabled = isBusy;
    stop.hidden = !isBusy;
    if (!isBusy) current = null;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    mistake.hidden = true;
    const words = inputs();
    busy(true);
    state.textContent = "Waiting for the model …";
    try {
      let prediction = await ask("/v1/predictions", { version: form.dataset.version, input: words });
      current = prediction.id;
      while (!OVER.includes(prediction.status)) {
        state.textContent = prediction.status === "starting" ? "The model is starting …" : "Drawing …";
        await new Promise((resolve) => { setTimeout(resolve, POLL_MILLISECONDS); });
        prediction = await ask(`/v1/predictions/${encodeURIComponent(prediction.id)}`);
      }
      if (prediction.status === "failed") throw new Error(prediction.error || "it failed");
      state.textContent = prediction.status === "succeeded" ? "Done." : "Stopped.";
      show(prediction, words);
    } catch (error) {
      state.textContent = "";
      mistake.textContent = `This did not work: ${error.message}`;
      mistake.hidden = false;
    } finally {
      busy(false);
    }
  });

  stop.addEventListener("click", () => {
    if (current) ask(`/v1/predictions/${encodeURIComponent(current)}/cancel`, {}).catch((error) => window.tadpole.tell(error.message));
  });
})();
