"""Masking: take passwords and tokens out of a text before anyone reads it.

A pure function, for whatever is shown, logged or written down: `masked`. It knows the forms in which a secret stands in a
text: a user and a password before a host, also percent-encoded; what has a name that says so, as an option (``token=…``,
``--token …``), in JSON, YAML and code; a header such as ``Authorization``; a token whose form says so; and secrets that the
caller knows.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["HIDDEN", "looks_secret", "masked", "masked_values", "secrets_of", "without_known"]

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
    rf"({_EQUALS})(?=[^\s\"'<>`@%]{{0,300}}[@%])((?:(?!{_COLON}|{_SLASH}|{_AT}|{_EQUALS}|{_AND})[^\s\"'<>`]){{1,99}}{_COLON}"
    rf"(?:(?!{_AND}|{_SLASH}|{_AT})[^\s\"'<>`]){{1,199}})({_AT})(?!sha\d)",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?<![\w.-])([\w.-]{{1,100}}){_EQUALS}(\\*[\"'])?", re.IGNORECASE)
_VALUE = re.compile(rf"(?:(?!{_AND})[^\s\"'<>`])+", re.IGNORECASE)
_ENTRY = re.compile(r"(\\*[\"'])([\w.-]{1,100})\1(\s*:\s*)(\\*[\"'])(?=[^\n])")
# In code: `password = "…"`, also with a type.
_ASSIGNED = re.compile(r"(?<![\w.-])([\w.-]{1,100})(?:[ \t]*:[^=\n\"']{1,60})?[ \t]*=[ \t]*([\"'])(?=[^\n])")
# As in YAML: a name, and one word up to the end of the line or of the entry.
_LINE = re.compile(
    r"(?:^([ \t]*(?:[-><*][ \t]+)?)|(?<=[\s{,;(]))([\w.-]{2,60}):[ \t]+(?!\*\*\*)"
    r"(?:([\"'])((?:(?!\3)[^\n])+)\3|([^\s\"',;(){}\[\]]+))(?=[ \t]*(?:$|[,;)}]))",
    re.MULTILINE,
)
_FLAG = re.compile(r"(?<![\w-])(--[\w-]{2,60}[ \t]+)(?!-)(?:([\"'])((?:(?!\2)[^\n])+)\2|([^\s\"'`<>]+))")
_HEADER = re.compile(
    r"(?:(\\*[\"'])[\w-]{0,30}?)?((?:authorization|(?<![\w-])(?:x-(?:[a-z]{1,20}-){0,3}(?:key|token|secret|auth)|api-key|cookie|set-cookie))"
    r"(\\*[\"'])?\s*([:=])\s*)(\\*[\"'])?",
    re.IGNORECASE,
)
_SCHEMES = r"(?:bearer|basic|token|digest|apikey|negotiate|ntlm|aws4-hmac-sha256)"
_SCHEME_BEFORE = re.compile(rf"{_SCHEMES}(?:\s|\\ )+(?=\S)", re.IGNORECASE)
_CREDENTIALS = re.compile(rf"(?:{_SCHEMES}[ \t]+)?[^\s\"'<>`&]+", re.IGNORECASE)
_LONE = re.compile(r"(?<![\w-])(bearer\s+)(?=[\w.~+/=-]*[\d._])[\w.~+/=-]{8,}", re.IGNORECASE)
_SURELY_SAID = re.compile(r"passw|passphrase|api[_-]?key", re.IGNORECASE)
_END_OF_LINE = re.compile(r"\s*(?:\n|\Z)")
_ISSUED = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|sk-(?=[\w-]*\d)[\w-]{24,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}(?!\w)|AIza[\w-]{30,})"
    r"|(?<=PRIVATE KEY-----)[^-]+",
)
"""Tokens that show by their form who issued them, and private keys."""
_WITH_SCHEME = re.compile(r"\s*(?:bearer|basic|token|apikey)\s+(\S+)\s*", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENCODED = re.compile(r"^(?:25)*(?:3F|26)", re.IGNORECASE)

_SURE = ("password", "passwd", "passphrase", "secret", "credential", "authorization", "apikey", "accesskey", "privatekey",
         "accountkey", "amzsignature", "googsignature")  # fmt: skip
_SURE_WORDS = frozenset({"pwd", "sig", "jwt", "bearer"})
_LIKELY_WORDS = frozenset({"key", "keys", "tokens", "pass", "auth", "dsn", "sas", "pat", "cookie", "webhook"})
_LIKELY = ("connectionstring", "connstr")
_NO_PASSWORDS = ("by", "com", "sur", "tres", "over", "under", "encom", "band", "high", "low", "all", "multi", "one", "two",
                 "single", "first", "second", "last", "forward", "backward")  # fmt: skip
"""What stands before "pass" in words that are no password, as in "bypass"."""
_BEFORE_TOKEN = frozenset({"eos", "bos", "pad", "unk", "sep", "cls", "mask", "special", "first", "per", "inter"})
_AFTER_TOKEN = frozenset({"latency", "rate", "count", "counts", "seconds", "length", "limit", "ids", "usage", "throughput"})
"""Words directly beside "token" that make it one of a language model."""
_COUNTED = _BEFORE_TOKEN | frozenset({
    "next", "time", "max", "min", "num", "new", "limit", "batched", "output", "input", "prompt", "latency", "rate", "count",
    "seconds", "length",
})  # fmt: skip
"""Words beside "tokens" that make them those of a language model."""
_TYPES = frozenset({"str", "int", "float", "bool", "bytes", "none", "null", "any", "string", "true", "false"})
_WORDS_OF_PROSE = frozenset(
    {"to", "and", "or", "is", "for", "in", "with", "was", "from", "of", "the", "a", "an", "must", "may", "on"}
)
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
    counts = {"tokens"} if _COUNTED & set(words) else set()
    return _surely(name) or bool(_LIKELY_WORDS & set(words) - counts) or any(part in "".join(words) for part in _LIKELY)


@lru_cache(maxsize=4096)
def _surely(name: str) -> bool:
    """Whether what is written ``name=…`` in any text is a secret: in code, ``key=…`` and ``auth=…`` are none."""
    words = _words(name)
    joined = "".join(words)
    return (
        any(part in joined for part in _SURE)
        or bool(_SURE_WORDS & set(words))
        or any(word.endswith("pass") and word != "pass" and word[:-4] not in _NO_PASSWORDS for word in words)
        or any(_is_token(words, place) for place in range(len(words)))
    )


def _is_token(words: list[str], place: int) -> bool:
    """Whether a word says token, and not one of a language model."""
    word = words[place]
    if not word.endswith("token"):
        return False
    before = word.removesuffix("token") or (words[place - 1] if place else "")
    after = words[place + 1] if place + 1 < len(words) else ""
    return before not in _BEFORE_TOKEN and "per" not in words[:place] and after not in _AFTER_TOKEN


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
    text = without_known(text, known)
    text = _ISSUED.sub(HIDDEN, _without(text, _headers(text)))
    for address in (_ADDRESS, _BARE):
        text = address.sub(lambda found: f"{found[1]}{_user(found[2])}{found[3]}", text)
    for find in (_options, _entries, _lines, _flags):
        text = _without(text, find(text))
    return _LONE.sub(rf"\g<1>{HIDDEN}", text)


def without_known(text: str, known: Collection[str]) -> str:
    """Return the text without known secrets, in whatever way they are written; quicker than `masked`.

    Parameters
    ----------
    text : str
        Such as a program that is shown as an output.
    known : collection of str
        Secrets that are masked wherever they stand.
    """
    return _pattern(frozenset(known)).sub(HIDDEN, text) if known else text


def _without(text: str, places: Iterable[tuple[int, int, int]]) -> str:
    """Mask the values at these places."""
    for start, end in reversed(list(_apart(places))):
        text = f"{text[:start]}{HIDDEN}{text[end:]}"
    return text


def _apart(places: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Yield where values begin and end: of places, which are in order, those that do not begin within the value before.

    A place says where the name before the value begins, too.
    """
    until = 0
    for begun, start, end in places:
        if begun >= until and end > start:
            until = end
            yield start, end


def masked_values(value: Any, known: Collection[str] = (), name: str = "") -> Any:
    """Return plain data (dicts, lists, texts) with all its texts masked.

    Known secrets are masked in values only: a key may be a word of the format.

    Parameters
    ----------
    value : dict, list, str or other
        Any value that JSON can hold.
    known : collection of str
        See `masked`.
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
        names = (name if _surely(name) and not looks_secret(str(key)) else str(key) for key in value)
        return frozenset().union(*map(secrets_of, value.values(), names))
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
    found |= {value[start:end] for start, end in _apart(_options(value))}
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


def _options(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the places of options that are called secrets."""
    for option in _OPTION.finditer(text):
        encoded = text[option.start() - 1 : option.start()] == "%"  # then the sign before the name is in it: %3Ftoken
        if _surely(_ENCODED.sub("", option[1]) if encoded else option[1]):
            end = _closing(text, option.end(), option[2]) if option[2] else None
            value = _VALUE.match(text, option.end())
            if end is None and value:
                end = value.end()
            yield option.start(), option.end(), end or 0


def _entries(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the places of values that follow a secret's name, in quotes: of JSON, also within a text, and of code."""
    found = [(entry.start(), entry.end(), entry[4]) for entry in _ENTRY.finditer(text) if _surely(entry[2])]
    found += [(entry.start(), entry.end(), entry[2]) for entry in _ASSIGNED.finditer(text) if _surely(entry[1])]
    for begun, start, quote_sign in sorted(found):
        yield begun, start, _closing(text, start, quote_sign) or 0


def _closing(text: str, start: int, sign: str) -> int | None:
    """Where a text in quotes ends; None when it does not on its line."""
    line = text.find("\n", start)
    line = len(text) if line < 0 else line
    place = text.find(sign, start, line)
    while place >= 0:
        escapes = place - len(text[start:place].rstrip("\\")) - start
        # A quote that is escaped itself, as in JSON within JSON, ends at the next one that is escaped as often.
        if escapes % 2 == 0 if len(sign) == 1 else escapes == 0:
            return place
        place = text.find(sign, place + 1, line)
    return None


def _lines(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the places of values that stand behind a secret's name and a colon."""
    for line in _LINE.finditer(text):
        sure = _surely(line[2]) if line[1] is not None else _SURELY_SAID.search(line[2]) is not None
        if sure and (line[5] or "").lower() not in _TYPES:
            yield line.start(), *line.span(4 if line[4] else 5)


def _flags(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the places of values that follow a secret's option after a space."""
    for flag in _FLAG.finditer(text):
        if _surely(flag[1]) and (flag[4] or "").lower() not in _WORDS_OF_PROSE:
            yield flag.start(), *flag.span(3 if flag[3] else 4)


def _headers(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the places of credentials in headers, which end with the line, or where the quotes close."""
    for header in _HEADER.finditer(text):
        start = header.end()
        if header[4] == "=" and not header[2].lower().startswith("authorization"):
            continue
        line = _END_OF_LINE.search(text, start).start()  # type: ignore[union-attr]
        quoted = header[5] or (header[1] if not header[3] else None)
        end = _closing(text, start, quoted) if quoted else None
        if end is None and header[3]:
            end = start + len(re.split(r"[,}\n]", text[start:line], maxsplit=1)[0])
        elif end is None and header[4] == "=":
            credentials = _CREDENTIALS.match(text, start)
            end = credentials.end() if credentials else start
        elif end is None:
            end = line
        if header[4] == ":" and (scheme := _SCHEME_BEFORE.match(text, start, end)):
            start = scheme.end()
        if text[start:end].strip():
            yield header.start(), start, end


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
