/* ipywidgets gives neither a slider's handle nor an image a name that a screen reader can say. */
(function name(tries, spot) {
  const panel = spot.closest(".canarykit-panel");
  const handle = panel && panel.querySelector(".canarykit-slider [role=slider]");
  const charts = panel ? [...panel.querySelectorAll("img.canarykit-chart")] : [];
  if (handle) handle.setAttribute("aria-label", "canary weight, percent of the traffic");
  charts.forEach((chart, number) => { chart.alt = number ? "" : spot.title; }); /* one picture in several parts */
  if (!(handle && charts.length) && tries) setTimeout(name, 200, tries - 1, spot);
})(50, this);
