// What all pages have: mistakes told, texts copied, questions before what cannot be undone. Without it every page can be read.
"use strict";

(() => {
  const told = document.getElementById("told");
  let silence;

  function tell(text) {
    told.textContent = text;
    clearTimeout(silence);
    silence = setTimeout(() => { told.textContent = ""; }, 8000);
  }

  function showCopyButtons(root) {
    if (!navigator.clipboard) return; // not on plain http to another machine
    for (const button of root.querySelectorAll(".copy")) button.hidden = false;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    tell("Copied.");
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });

  document.addEventListener("htmx:responseError", (event) => {
    const { status, responseText } = event.detail.xhr;
    const isLine = responseText && responseText.length < 500 && !responseText.startsWith("<");
    tell(isLine ? responseText : `The service answered ${status}.`);
  });
  document.addEventListener("htmx:sendError", () => tell("The service cannot be reached."));
  document.addEventListener("htmx:afterSwap", (event) => showCopyButtons(event.detail.target || document));
  showCopyButtons(document);

  window.tadpole = { tell };
})();
