/* ipywidgets gives neither a slider's handle nor an image a name that a screen reader can say. */
(function name(tries, spot) {
  const panel = spot.closest(".canarykit-panel");
  const handle = panel && panel.querySelector(".canarykit-slider [role=slider]");
  const chart = panel && panel.querySelector("img.canarykit-chart");
  if (handle) handle.setAttribute("aria-label", "canary weight, percent of the traffic");
  if (chart) {
    chart.alt = spot.title;
    chart.parentElement.tabIndex = 0; /* wider than a narrow panel: the arrow keys scroll it */
    chart.parentElement.setAttribute("role", "region");
    chart.parentElement.setAttribute("aria-label", "chart");
  }
  if (!(handle && chart) && tries) setTimeout(name, 200, tries - 1, spot);
})(50, this);
