// The page of a training: the log follows its end and can be searched, ages go on, sample pictures open large.
"use strict";

(() => {
  const MOST_LINES = 5000;
  const log = document.getElementById("log");
  const search = document.getElementById("log-search");
  const follow = document.getElementById("log-follow");
  const viewer = document.getElementById("viewer");
  document.getElementById("log-tools").hidden = false;

  function sift() {
    const wanted = search.value.toLowerCase();
    for (const line of log.children) line.hidden = wanted !== "" && !line.textContent.toLowerCase().includes(wanted);
  }

  function toTheEnd() {
    if (follow.checked) log.scrollTop = log.scrollHeight;
  }

  search.addEventListener("input", sift);
  follow.addEventListener("change", toTheEnd);
  log.addEventListener("htmx:sseMessage", () => {
    while (log.children.length > MOST_LINES) log.firstElementChild.remove();
    if (search.value) sift();
    toTheEnd();
  });
  toTheEnd();

  document.getElementById("age-feed").addEventListener("htmx:sseMessage", (event) => {
    const ages = JSON.parse(event.detail.data);
    for (const time of document.querySelectorAll(".training time")) {
      const age = ages[time.dateTime];
      if (age && age !== time.textContent) time.textContent = age;
    }
  });

  document.getElementById("samples").addEventListener("click", (event) => {
    const link = event.target.closest(".sample");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const picture = document.getElementById("viewer-picture");
    picture.src = link.href;
    picture.alt = link.dataset.caption;
    document.getElementById("viewer-caption").textContent = link.dataset.caption;
    viewer.showModal();
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
})();
