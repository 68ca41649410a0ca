// The chart of the loss: what each step had, and a smoothed line through it; the learning rate on an axis of its own.
"use strict";

(() => {
  const place = document.getElementById("chart");
  if (!place || !window.uPlot) return;

  const controls = {
    smoothing: document.getElementById("smoothing"),
    logAxis: document.getElementById("log-axis"),
    rateAxis: document.getElementById("rate-axis"),
    whole: document.getElementById("whole-course"),
  };
  const HEIGHT = 320;
  let points = []; // [step, loss or null, rate or null], in the order of steps
  let plot = null;

  // A run that was resumed goes back: what it does again counts.
  function merge(further) {
    if (!further.length) return;
    const first = further[0][0];
    while (points.length && points[points.length - 1][0] >= first) points.pop();
    points.push(...further);
  }

  function asPoints(columns) {
    return columns.step.map((step, number) => [step, columns.loss[number], columns.rate[number]]);
  }

  // An exponential mean that begins at the first value instead of at nothing.
  function smoothed(values, weight) {
    let sum = 0;
    let count = 0;
    return values.map((value) => {
      if (value === null) return null;
      sum = sum * weight + value * (1 - weight);
      count += 1;
      return sum / (1 - weight ** count);
    });
  }

  function data() {
    const steps = points.map((point) => point[0]);
    let losses = points.map((point) => point[1]);
    if (controls.logAxis.checked) losses = losses.map((loss) => (loss > 0 ? loss : null));
    const weight = Number(controls.smoothing.value) / 100;
    return [steps, losses, smoothed(losses, weight), points.map((point) => point[2])];
  }

  // As people write figures: 0.0412, 12,000, 2e-6.
  function short(value) {
    if (value === null || value === undefined) return "–";
    if (value !== 0 && Math.abs(value) < 1e-3) return Number(value.toPrecision(3)).toExponential();
    return Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
  }

  function ticks(_plot, values) {
    return values.map((value) => (value === null ? "" : short(value)));
  }

  function options() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--faint"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
    return {
      width: Math.max(place.clientWidth, 280),
      height: HEIGHT,
      scales: { x: { time: false }, y: { distr: controls.logAxis.checked ? 3 : 1 }, rate: {} },
      legend: { markers: { width: 0, fill: (drawn, number) => drawn.series[number].stroke(drawn, number) } },
      series: [
        { label: "Step", value: (_plot, value) => (value === null ? "–" : value.toLocaleString("en")) },
        { label: "Each step", stroke: color("--pale"), width: 1, points: { show: false }, value: (_plot, value) => short(value) },
        { label: "Smoothed", stroke: color("--green"), width: 2.25, points: { show: false }, value: (_plot, value) => short(value) },
        {
          label: "Learning rate", scale: "rate", stroke: color("--amber"), width: 1.25, dash: [5, 4], points: { show: false },
          show: controls.rateAxis.checked, value: (_plot, value) => short(value),
        },
      ],
      axes: [
        axis,
        { ...axis, size: 64, values: ticks },
        { ...axis, scale: "rate", side: 1, size: 76, grid: { show: false }, values: ticks, show: controls.rateAxis.checked },
      ],
    };
  }

  // Where nobody points at a step, the legend has the figures of the last.
  function restLegend() {
    if (plot.cursor.left === undefined || plot.cursor.left < 0) plot.setLegend({ idx: points.length - 1 }, false);
  }

  function draw(anew) {
    const isEmpty = points.length === 0;
    document.getElementById("chart-empty").hidden = !isEmpty;
    document.getElementById("chart-tools").hidden = isEmpty;
    if (isEmpty) return;
    if (plot && !anew) {
      plot.setData(data());
    } else {
      if (plot) plot.destroy();
      plot = new window.uPlot(options(), data(), place);
      plot.over.addEventListener("mouseleave", () => requestAnimationFrame(restLegend));
    }
    requestAnimationFrame(restLegend); // uPlot draws the legend of what it was given first
    const last = points[points.length - 1];
    place.setAttribute("aria-label", `Chart of the loss: ${short(last[1])} at step ${last[0]}; the table below has the figures`);
    window.__chart = { data: plot.data };
  }

  document.body.addEventListener("htmx:sseBeforeMessage", (event) => {
    if (event.target.id !== "loss-feed") return;
    event.preventDefault(); // figures, not HTML
    merge(asPoints(JSON.parse(event.detail.data)));
    draw(false);
  });
  controls.smoothing.addEventListener("input", () => draw(false));
  controls.logAxis.addEventListener("change", () => draw(true));
  controls.rateAxis.addEventListener("change", () => draw(true));
  controls.whole.addEventListener("click", () => draw(true));
  window.addEventListener("resize", () => { if (plot) plot.setSize({ width: Math.max(place.clientWidth, 280), height: HEIGHT }); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));

  fetch(place.dataset.source)
    .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText))))
    .then((columns) => {
      const sinceThen = points;
      points = asPoints(columns);
      const last = points.length ? points[points.length - 1][0] : -1;
      points.push(...sinceThen.filter((point) => point[0] > last));
      draw(true);
    })
    .catch(() => window.tadpole.tell("The loss could not be loaded."));
})();
