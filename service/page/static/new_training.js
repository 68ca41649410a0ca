// Pictures of a new training: dropped anywhere on their box, sent as soon as they are chosen, with a bar that shows how far.
"use strict";

(() => {
  const part = document.getElementById("pictures");

  part.classList.add("scripted"); // files are sent as soon as they are chosen: no button is needed

  function box() {
    return document.getElementById("drop");
  }

  function send(files) {
    const input = document.getElementById("files");
    input.files = files;
    window.htmx.trigger(box(), "submit");
  }

  for (const kind of ["dragenter", "dragover"]) {
    part.addEventListener(kind, (event) => {
      event.preventDefault();
      box().classList.add("over");
    });
  }
  part.addEventListener("dragleave", (event) => { if (!part.contains(event.relatedTarget)) box().classList.remove("over"); });
  part.addEventListener("drop", (event) => {
    event.preventDefault();
    box().classList.remove("over");
    if (event.dataTransfer.files.length) send(event.dataTransfer.files);
  });
  part.addEventListener("change", (event) => {
    if (event.target.id === "files" && event.target.files.length) window.htmx.trigger(box(), "submit");
  });

  part.addEventListener("htmx:beforeRequest", () => {
    document.getElementById("upload-progress").hidden = false;
    document.getElementById("upload").setAttribute("aria-busy", "true");
  });
  part.addEventListener("htmx:xhr:progress", (event) => {
    const bar = document.getElementById("upload-progress");
    if (!bar || !event.detail.lengthComputable) return;
    if (event.detail.loaded >= event.detail.total) bar.removeAttribute("value"); // sent: now they are looked at
    else bar.value = (100 * event.detail.loaded) / event.detail.total;
  });
  part.addEventListener("htmx:afterRequest", () => {
    const bar = document.getElementById("upload-progress");
    if (bar) bar.hidden = true;
    const button = document.getElementById("upload");
    if (button) button.removeAttribute("aria-busy");
  });
  part.addEventListener("htmx:afterSwap", () => part.focus({ preventScroll: true }));
})();
