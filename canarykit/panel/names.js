/* ipywidgets gives neither a slider's handle nor an image a name that a screen reader can say. */
(function name(tries, spot) {
  const panel = spot.closest(".canarykit-panel");
  const handle = panel && panel.querySelector(".canarykit-slider [role=slider]");
  const chart = panel && panel.querySelector("img.canarykit-chart");
  if (handle) handle.setAttribute("aria-label", "canary asks, percent of the traffic");
  if (chart) chart.alt = spot.title;
  if (!(handle && chart) && tries) setTimeout(name, 200, tries - 1, spot);
})(50, this);
