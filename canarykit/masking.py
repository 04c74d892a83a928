"""Masking: take passwords and tokens out of a text before anyone reads it.

A pure function, for whatever is shown, logged or written down: `masked`. It knows the forms in which a secret stands in a
text: a user and a password before a host, also percent-encoded; an option whose name says what it is (``token=…``); a header
``Authorization``; and secrets that the caller knows.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["HIDDEN", "looks_secret", "masked", "masked_values", "secrets_of"]

HIDDEN = "***"
"""What stands where a secret was."""

_COLON, _SLASH, _AT, _EQUALS, _AND = (rf"(?:{sign}|%(?:25)*{code})" for sign, code in (
    (":", "3A"), ("/", "2F"), ("@", "40"), ("=", "3D"), ("&", "26")
))  # fmt: skip
_SCHEME = rf"{_COLON}{_SLASH}{_SLASH}"
# Up to the last @ of the word: a password may hold any sign, also one that should have been encoded.
_ADDRESS = re.compile(rf"({_SCHEME})((?:(?!{_SCHEME})[^\s\"'<>`])*)({_AT})", re.IGNORECASE)
# An address whose scheme was forgotten; an image with a digest is none.
_BARE = re.compile(
    rf"({_EQUALS})((?:(?!{_COLON}|{_SLASH}|{_AT}|{_EQUALS}|{_AND})[^\s\"'<>`]){{1,99}}{_COLON}"
    rf"(?:(?!{_AND}|{_SLASH}|{_AT})[^\s\"'<>`]){{1,199}})({_AT})(?!sha\d)",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?<![\w.-])([\w.-]+){_EQUALS}[\"']?", re.IGNORECASE)
_VALUE = re.compile(rf"(?:(?!{_AND})[^\s\"'<>`])+", re.IGNORECASE)
_ENTRY = re.compile(r"([\"'])([\w.-]+)\1(\s*:\s*)([\"'])((?:(?!\4)[^\n])+)\4")
_HEADER = re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)([^\s\"',]+)", re.IGNORECASE)
_WITH_SCHEME = re.compile(r"\s*(?:bearer|basic|token|apikey)\s+(\S+)\s*", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENCODED = re.compile(r"^(?:25)*(?:3F|26)", re.IGNORECASE)

_SURE = ("password", "passwd", "passphrase", "secret", "credential", "authorization", "apikey", "accesskey", "privatekey",
         "accountkey", "amzsignature", "googsignature")  # fmt: skip
_SURE_WORDS = frozenset({"pwd", "sig", "jwt", "bearer"})
_LIKELY_WORDS = frozenset({"key", "keys", "tokens", "pass", "auth", "dsn", "sas", "pat", "cookie", "webhook"})
_LIKELY = ("connectionstring", "connstr")
_OF_MODELS = frozenset({
    "first", "per", "inter", "next", "time", "max", "min", "num", "new", "limit", "batched", "output", "input", "prompt",
    "eos", "bos", "pad", "unk", "sep", "cls", "mask", "special", "latency", "rate", "count", "seconds", "length",
})  # fmt: skip
"""Words beside "token" that make it one of a language model."""
_LEAST = 3


def looks_secret(name: str) -> bool:
    """Say whether a variable of this name is likely to hold a secret: ``API_KEY``, ``hfToken``, ``DATABASE_DSN``.

    ``MAX_TOKENS``, ``pad_token`` and ``TOKENIZERS_PARALLELISM`` are none.

    Parameters
    ----------
    name : str
        Name of an environment variable, of a parameter, or of an option.
    """
    words = _words(name)
    counts = {"tokens"} if _OF_MODELS & set(words) else set()
    return _surely(name) or bool(_LIKELY_WORDS & set(words) - counts) or any(part in "".join(words) for part in _LIKELY)


def _surely(name: str) -> bool:
    """Whether what is written ``name=…`` in any text is a secret: in code, ``key=…`` and ``auth=…`` are none."""
    words = _words(name)
    joined = "".join(words)
    return (
        any(part in joined for part in _SURE)
        or bool(_SURE_WORDS & set(words))
        or (any(word.endswith("token") for word in words) and not _OF_MODELS & set(words))
    )


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


def masked(text: str, known: Collection[str] = ()) -> str:
    """Return the text without secrets; what is masked once stays as it is.

    Parameters
    ----------
    text : str
        Whatever is to be read by people or kept.
    known : collection of str
        Secrets that are masked wherever they stand, such as those of `secrets_of`.
    """
    if known:
        text = _pattern(frozenset(known)).sub(HIDDEN, text)
    for address in (_ADDRESS, _BARE):
        text = address.sub(lambda found: f"{found[1]}{_user(found[2])}{found[3]}", text)
    for start, end in reversed(list(_options(text))):
        text = f"{text[:start]}{HIDDEN}{text[end:]}"
    text = _ENTRY.sub(lambda m: f"{m[1]}{m[2]}{m[1]}{m[3]}{m[4]}{HIDDEN}{m[4]}" if _surely(m[2]) else m[0], text)
    return _HEADER.sub(rf"\g<1>{HIDDEN}", text)


def masked_values(value: Any, known: Collection[str] = (), name: str = "") -> Any:
    """Return plain data (dicts, lists, texts) with all its texts masked.

    Known secrets are masked in values only: a key may be a word of the format.

    Parameters
    ----------
    value : dict, list, str or other
        What JSON can hold.
    known : collection of str
        As of `masked`.
    name : str
        Name of the value: where that is a secret's, all of the value is hidden, whatever its type.
    """
    if _surely(name) and _can_be_secret(value):
        return HIDDEN
    if isinstance(value, str):
        return masked(value, known)
    if isinstance(value, Mapping):
        return {
            masked(key) if isinstance(key, str) else key: masked_values(inside, known, str(key))
            for key, inside in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked_values(inside, known) for inside in value]
    return value


def _can_be_secret(value: Any) -> bool:
    """Whether there is something to hide: an empty value and a switch say nothing."""
    return not isinstance(value, bool) and value is not None and value not in ("", [], (), {})


def secrets_of(value: Any, name: str = "") -> frozenset[str]:
    """Return the secrets that a value holds, to mask them where they stand alone, too.

    Parameters
    ----------
    value : dict, list, str, number or other
        Such as an address with a password in it.
    name : str
        Name of the value: where that looks secret, the whole value is one, and so is each value inside.
    """
    if isinstance(value, Mapping):
        return frozenset().union(
            *(
                secrets_of(inside, name if _surely(name) and not looks_secret(str(key)) else str(key))
                for key, inside in value.items()
            )
        )
    if isinstance(value, (list, tuple)):
        return frozenset().union(*(secrets_of(inside, name) for inside in value))
    if isinstance(value, (int, float)):
        return frozenset({str(value)} if _surely(name) and _can_be_secret(value) else ())
    if not isinstance(value, str):
        return frozenset()
    # `auth = "none"` and `key = "label"` are called like secrets and are words.
    plain = value.isdecimal() or (value.isalpha() and value.islower())
    found = {value} if _surely(name) or (looks_secret(name) and not plain) else set()
    if found and (scheme := _WITH_SCHEME.fullmatch(value)):
        found.add(scheme[1])
    for address in (*_ADDRESS.finditer(value), *_BARE.finditer(value)):
        found |= _of_user(address[2])
    found |= {value[start:end] for start, end in _options(value)}
    return frozenset(secret for secret in found if secret and secret != HIDDEN)


def _user(info: str) -> str:
    """Who stands before the @ of an address, without the password."""
    user, colon, password = _parted(info)
    if colon:
        return f"{user if password else HIDDEN}{colon}{HIDDEN if password else ''}"
    return info if re.search(rf"{_SLASH}|[?#]", info, re.IGNORECASE) or not info else HIDDEN  # an @ of the path, or a token


def _of_user(info: str) -> set[str]:
    user, colon, password = _parted(info)
    if not colon:
        return {info} if _user(info) == HIDDEN else set()
    if not password:
        return {user}
    said = f"{unquote(user)}:{unquote(password)}".encode()
    return {password, base64.b64encode(said).decode()}


def _parted(info: str) -> tuple[str, str, str]:
    parts = re.split(f"({_COLON})", info, maxsplit=1, flags=re.IGNORECASE)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else (info, "", "")


def _options(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the values of options that are called secrets begin and end."""
    until = 0
    for option in _OPTION.finditer(text):
        encoded = text[option.start() - 1 : option.start()] == "%"  # then the sign before the name is in it: %3Ftoken
        if option.start() < until or not _surely(_ENCODED.sub("", option[1]) if encoded else option[1]):
            continue
        value = _VALUE.match(text, option.end())
        if value:
            until = value.end()
            yield value.span()


@lru_cache(maxsize=16)
def _pattern(known: frozenset[str]) -> re.Pattern[str]:
    """Match any of these as a whole word, the longest first; nothing when there are none."""
    forms = sorted(set(_forms(known)), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, forms))})(?!\w)" if forms else r"(?!)")


def _forms(known: Collection[str]) -> Iterator[str]:
    """Yield the ways in which a secret is written. Short ones are left out: they would be found in innocent words."""
    for secret in known:
        for text in {secret, unquote(secret), unquote(unquote(secret))}:
            encoded = quote(text, safe="")
            escaped = [json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False)]
            for form in (text, encoded, quote(encoded, safe=""), html.escape(text), *escaped, repr(text)[1:-1],
                         text.encode("unicode_escape").decode()):  # fmt: skip
                if len(form) >= _LEAST and not (form.isdigit() and len(form) <= _LEAST):
                    yield form
