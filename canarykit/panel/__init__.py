"""The panel: an experiment under one's hands. The only room that imports ipywidgets."""

from canarykit.panel.panel import Panel

__all__ = ["Panel"]
