"""What papermill saves after each cell, without the secrets that the notebook was given.

The kernel has the real values; no file ever has them, however the run ends.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import nbformat
from papermill.iorw import papermill_io
from papermill.translators import PythonTranslator

from canarykit.masking import HIDDEN, looks_secret, masked, masked_values, secrets_of, without_known
from canarykit.progress import METADATA, Stream

__all__ = ["MaskedStream", "hidden_parameters", "known_secrets", "saving_masked"]

_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
_PROGRAMS = ("application/javascript", "text/javascript")
_ENCODED = re.compile(r"(data:[\w/.+-]{1,60};base64,[\w/+=]{200,})", re.ASCII)
_TEXTS = ("text", "ename", "evalue", "traceback")
_WORDS_OF_NOTEBOOKS = ("tags", "kernelspec", "language_info", "status", "version", *METADATA)
"""Metadata whose values others read: a cell's tags, the kernel, the state of the run, the mark of a passing line."""


class MaskedStream(Stream):
    """A stream that masks what it shows.

    Parameters
    ----------
    stream : file, optional
        See `Stream`.
    known : collection of str
        Secrets that are masked wherever they stand.
    """

    def __init__(self, stream: Any = None, known: Collection[str] = ()) -> None:
        super().__init__(stream)
        self._known = known
        self._held = ""

    def write(self, text: str) -> int:
        """Write all whole lines without secrets; the rest waits for its end, since a secret may be cut in two."""
        lines, end, rest = _by_lines(self._held + text)
        self._held = rest
        if lines or end:
            super().write(masked(lines, self._known) + end)
        return len(text)

    def end(self, text: str = "") -> None:
        """Write what waits, and wipe the passing line away."""
        if self._held:
            held, self._held = self._held, ""
            super().write(masked(held, self._known))
        super().end(text)

    def passing(self, text: str) -> None:
        """Show a line that the next one replaces, without secrets."""
        super().passing(masked(text, self._known))


def _by_lines(text: str) -> tuple[str, str, str]:
    """Part a text into whole lines, the sign that ends them, and the rest."""
    place = max(text.rfind("\n"), text.rfind("\r"))
    return (text[:place], text[place], text[place + 1 :]) if place >= 0 else ("", "", text)


def known_secrets(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Secrets in the parameters of a notebook: passwords and tokens of addresses, and all of what is called one."""
    return frozenset().union(*(secrets_of(value, name) for name, value in parameters.items()))


def hidden_parameters(parameters: Mapping[str, Any], known: Collection[str] = ()) -> dict[str, Any]:
    """Return the parameters as they may be written down.

    Parameters
    ----------
    parameters : mapping
        As the notebook is given them.
    known : collection of str
        Secrets that are masked wherever they stand, beside those of the parameters themselves.
    """
    known = frozenset(known) | known_secrets(parameters)
    return {
        name: HIDDEN
        if isinstance(value, (str, list, tuple, Mapping)) and value and looks_secret(name)
        else masked_values(value, known, name)
        for name, value in parameters.items()
    }


@contextmanager
def saving_masked(target: Path, parameters: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """Yield the path that papermill must be given, so that each save of the executed notebook is masked.

    Parameters
    ----------
    target : Path
        Where the notebook is written, readable by its owner alone.
    parameters : mapping
        As the notebook is given them.
    known : collection of str
        Secrets that are masked wherever they stand.
    """
    # Notebooks may be run side by side: each has a place of its own.
    place, handler = f"canarykit-{uuid4().hex}:", _Handler(target, parameters, known)
    papermill_io.register(place, handler)
    try:
        yield f"{place}{target}"
    finally:
        papermill_io._handlers.remove((place, handler))


class _Handler:
    """A place of papermill's where notebooks are written."""

    def __init__(self, target: Path, parameters: Mapping[str, Any], known: Collection[str]) -> None:
        self._target, self._parameters, self._known = target.absolute(), parameters, known

    def write(self, text: str, path: str) -> None:
        notebook = _without_secrets(nbformat.reads(text, as_version=4), self._parameters, self._known)
        notebook.metadata.papermill["output_path"] = str(self._target)
        _replace(self._target, nbformat.writes(notebook))

    def pretty_path(self, path: str) -> str:
        return str(self._target)


def _without_secrets(notebook: Any, parameters: Mapping[str, Any], known: Collection[str]) -> Any:
    """Return the notebook with all texts masked, and the parameters as they may be written down."""
    hidden = hidden_parameters(parameters, known)
    notebook.metadata.papermill["parameters"] = hidden
    if hidden != dict(parameters):
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", ()):
                cell.source = PythonTranslator.codify(hidden).rstrip("\n")
    # Last of all, so that nothing is put in after it.
    return nbformat.from_dict(_masked(notebook, known))


def _masked(notebook: Any, known: Collection[str]) -> dict[str, Any]:
    """Mask what people wrote or see, and none of the words that make it a notebook: a secret may be called like one of them."""
    metadata = _masked_metadata(notebook.metadata, known)
    return {**notebook, "metadata": metadata, "cells": [_masked_cell(cell, known) for cell in notebook.cells]}


def _masked_cell(cell: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    plain = {**cell, "source": masked(cell["source"], known), "metadata": _masked_metadata(cell["metadata"], known)}
    if "attachments" in cell:
        plain["attachments"] = {name: _masked_data(data, known) for name, data in cell["attachments"].items()}
    if "outputs" in cell:
        plain["outputs"] = [_masked_output(output, known) for output in cell["outputs"]]
    return plain


def _masked_output(output: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    plain = {**output, **{name: _masked_kind("", output[name], known) for name in _TEXTS if name in output}}
    if "data" in output:
        plain["data"] = _masked_data(output["data"], known)
    if "metadata" in output:
        plain["metadata"] = _masked_metadata(output["metadata"], known)
    return plain


def _masked_data(data: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {kind: _masked_kind(kind, inside, known) for kind, inside in data.items()}


def _masked_kind(kind: str, value: Any, known: Collection[str]) -> Any:
    if kind in _PICTURES:
        return value
    if kind in _PROGRAMS and isinstance(value, str):
        return without_known(value, known)
    return _masked_text(value, frozenset(known)) if isinstance(value, str) else masked_values(value, known)


@lru_cache(maxsize=1024)
def _masked_text(text: str, known: frozenset[str]) -> str:
    """Mask an output; papermill saves all of them anew after each cell. What is between encoded pictures is masked."""
    return "".join(part if place % 2 else masked(part, known) for place, part in enumerate(_ENCODED.split(text)))


def _masked_metadata(metadata: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {
        key: inside
        if key in _WORDS_OF_NOTEBOOKS
        else _masked_metadata(inside, known)
        if isinstance(inside, Mapping)
        else masked_values(inside, known, key)
        for key, inside in metadata.items()
    }


def _replace(path: Path, text: str) -> None:
    """Write a whole file or nothing: whoever is killed meanwhile leaves the one before."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
