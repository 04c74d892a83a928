"""Secrets in texts: what is masked, and what stays."""

import base64
import copy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarykit import errors
from canarykit.errors import CanaryError
from canarykit.masking import HIDDEN, looks_secret, masked, masked_values, secrets_of
from canarykit.model import Ending


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:s3cret@host:9090/x", "http://user:***@host:9090/x"),
        ("kube:prod/ai?prometheus=http://u:s3cret@h&router=istio", "kube:prod/ai?prometheus=http://u:***@h&router=istio"),
        ("?prometheus=http%3A%2F%2Fu%3As3cret%40h%3A9090&url=a", "?prometheus=http%3A%2F%2Fu%3A***%40h%3A9090&url=a"),
        ("http%253A%252F%252Fu%253As3cret%2540h", "http%253A%252F%252Fu%253A***%2540h"),  # encoded twice
        ("postgres://app:s3cret/with@signs@db:5432/x", "postgres://app:***@db:5432/x"),  # not encoded where it should be
        ("https://s3cret@github.com/a", "https://***@github.com/a"),  # a token in place of a user
        ("https://s3cret:@api.example.com", "https://***:@api.example.com"),  # a key with an empty password
        ("from http://a:s3cret@h1,http://b:s3cret@h2 .", "from http://a:***@h1,http://b:***@h2 ."),
        ("kube:/ns?prometheus=u:s3cret@h:9090", "kube:/ns?prometheus=u:***@h:9090"),  # its scheme was forgotten
        ("http://h/q?token=s3cret&x=1", "http://h/q?token=***&x=1"),
        ("http://h/q?x=1&api_key=s3cret", "http://h/q?x=1&api_key=***"),
        ("url=http%3A%2F%2Fh%3FapiKey%3Ds3cret%26x%3D1", "url=http%3A%2F%2Fh%3FapiKey%3D***%26x%3D1"),
        ("https://b/o?X-Amz-Credential=s3cret&X-Amz-Signature=s3cret", "https://b/o?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("https://b/o?sv=1&sig=s3cret", "https://b/o?sv=1&sig=***"),
        ("vllm serve --api-key=s3cret --port=1", "vllm serve --api-key=*** --port=1"),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic s3cret'}", "{'authorization': '***'}"),
        ('{"password": "s3cret", "n": 1}', '{"password": "***", "n": 1}'),
        ("Server=db;Password=s3cret;x", "Server=db;Password=***"),
        ("authorization=Bearer s3cret", "authorization=***"),
        ("AUTHORIZATION='Bearer s3cret' x", "AUTHORIZATION='***' x"),
        ("headers={'Authorization': 'Bearer s3cret'}, n=1", "headers={'Authorization': '***'}, n=1"),
        ("{'authorization': ['Bearer s3cret'], 'n': 1}", "{'authorization': ***, 'n': 1}"),
        ("{'HTTP_AUTHORIZATION': 'Bearer s3cret', 'n': 1}", "{'HTTP_AUTHORIZATION': '***', 'n': 1}"),
        ("curl -H 'Authorization: Bearer s3cret' http://h", "curl -H 'Authorization: Bearer ***' http://h"),
        ("curl -H Authorization:\\ Bearer\\ s3cret", "curl -H Authorization:***"),
        ("Authorization: ApiKey s3cret\nnext", "Authorization: ApiKey ***\nnext"),
        ('Authorization: Digest username="u", response="s3cret"', "Authorization: Digest ***"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=s3cret, Signature=s3cret", "Authorization: AWS4-HMAC-SHA256 ***"),
        ("Proxy-Authorization: s3cret s3cret", "Proxy-Authorization: ***"),
        ("X-Api-Key: s3cret", "X-Api-Key: ***"),
        ("x-goog-api-key: s3cret", "x-goog-api-key: ***"),
        ("Set-Cookie: session=s3cret; Path=/", "Set-Cookie: ***"),
        ("password: s3cret\nuser: me", "password: ***\nuser: me"),
        ("{user: me, password: s3cret}", "{user: me, password: ***}"),
        ("  - token: 's3cret s3cret'", "  - token: '***'"),
        ("serve --password s3cret --port 1", "serve --password *** --port 1"),
        ("serve --api-key 's3cret s3cret' -v", "serve --api-key '***' -v"),
        ("TOKEN='s3cret s3cret' x", "TOKEN='***' x"),
        ('{\\"password\\": \\"s3cret\\", \\"n\\": 1}', '{\\"password\\": \\"***\\", \\"n\\": 1}'),
        ('{"password": "a\\"s3cret", "n": 1}', '{"password": "***", "n": 1}'),
        ('{"password": "s3cret\\\\", "n": 1}', '{"password": "***", "n": 1}'),
        ("password = 's3cret'", "password = '***'"),
        ('api_key: str = "s3cret"  # For it', 'api_key: str = "***"  # For it'),
        ("refused: Bearer s3cret.0f-1", "refused: Bearer ***"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.s3cret", "got ***"),
        ("INPUT_GITHUB_TOKEN=s3cret NEXT_PUBLIC_MAPBOX_TOKEN=s3cret", "INPUT_GITHUB_TOKEN=*** NEXT_PUBLIC_MAPBOX_TOKEN=***"),
        ("PGPASS=s3cret", "PGPASS=***"),
    ],
)
def test_a_secret_is_masked(text, shown):
    """
    Passwords before a host, options and headers that are called secrets; what is around them stays.
    """
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/v2/health/ready",
        "https://ai.example.com/@user",
        "http://h/p?email=a@b.c",
        "kube:prod/ai?router=istio&gateway=mesh/web&url=https://ai.example.com",
        "--image=registry.example:5000/ai@sha256:0123 image=ai:1@sha256:0123",
        "inter_token_latency=1.2 time_per_output_token=0.05 eos_token=</s>",
        "max_tokens=5 TOKENIZERS_PARALLELISM=false sorted(x, key=len)",
        "mlflow.log_model(model, signature=signature)",
        "tokens per second: 5",
        "5 % to the canary, in force after 2 ms",
        "mail to a@b.c at 12:30",
        "token: str\npassword: str",
        "def connect(user: str, password: str):",
        "first_pass=1 token_count: 5 time_per_output_token: 0.05",
        "x-request-id: 5 x-canarykit-version: v1",
        "use --token to pass one",
        'pad_token = "<pad>"',
        "the bearer tokens of all users",
        "sk-estimator-doc-link sk-container-id-1",
    ],
)
def test_what_is_no_secret_stays(text):
    """
    Addresses, images with a digest, numbers of tokens, sort keys and plain words are shown as they are.
    """
    assert masked(text) == text


@given(st.text(alphabet="ab:/@=?&%253A2F40 \"'<>token.", max_size=60))
def test_masking_twice_changes_nothing(text):
    """
    What was masked can be masked again, as it is on its way from an error to a report.
    """
    assert masked(masked(text)) == masked(text)


PIECES = ["authorization", "password", "x-api-key", "cookie", "token", "--token", "Bearer", "abc.1def", "=", ":", ": ", " ",
          '"', "'", "\\", "\n", ",", "{", "}", "://", "@", "***", "%3D", "str", "Digest", "- "]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_masking_twice_changes_nothing_in_headers_and_entries(text):
    """
    As for addresses.
    """
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "text",
    ["var x=1;" * 100_000, "data:text/html;base64," + "QUJD+/a=" * 60_000, "://" * 20_000, "a=b:" * 50_000, "a.b-c_" * 100_000,
     "f" * 500_000, '"token": "' * 5_000, "authorization: " * 5_000, "password='" * 5_000],
)  # fmt: skip
def test_large_outputs_are_masked_soon(text):
    """
    No form takes time that grows with the square of the text.
    """
    began = time.process_time()
    masked(text)
    assert time.process_time() - began < 5


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'<>`*"), min_size=4).map(
    lambda password: f"Q{password}Q"
))  # fmt: skip
def test_no_password_of_an_address_survives(password):
    """
    Whatever signs it is made of, encoded or not.
    """
    assert password not in masked(f"it is http://user:{password}@host:9090/x")
    assert password not in masked(f"kube:a/b?prometheus=http://user:{password}@host")


def test_known_secrets_are_masked_wherever_they_stand():
    """
    A password alone, as it is decoded, in a header, escaped; but not within another word.
    """
    known = secrets_of("kube:a/b?prometheus=http://me:p%40ss%22w%C3%BCrd@h")
    basic = base64.b64encode('me:p@ss"würd'.encode()).decode()
    for form in ("p%40ss%22w%C3%BCrd", 'p@ss"würd', "p@ss&quot;würd", 'p@ss\\"würd', 'p@ss"w\\xfcrd', basic):
        assert masked(f"x {form} y", known) == f"x {HIDDEN} y", form
    assert masked("passport", secrets_of("http://u:pass@h")) == "passport"


def test_secrets_of_a_parameter():
    """
    All of a value whose name says so, and the passwords within others; words and numbers of doubtful names are none.
    """
    assert secrets_of("abc", "api_key") == {"abc"}
    assert secrets_of(["http://u:abc@h"], "targets") >= {"abc"}
    assert secrets_of({"headers": {"token": "abc"}}) == {"abc"}
    assert secrets_of("label", "key") == secrets_of("none", "auth") == secrets_of(5, "max_tokens") == frozenset()
    assert secrets_of("AKIA77", "key") == {"AKIA77"}


def test_plain_data_is_masked_by_names_and_forms():
    """
    Dicts, lists and texts; numbers stay.
    """
    facts = {"url": "http://u:abc@h", "list": ["?token=abc", 5], "env": {"API_KEY": "abc"}}
    assert masked_values(facts) == {"url": "http://u:***@h", "list": ["?token=***", 5], "env": {"API_KEY": "***"}}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in (
            "API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "githubToken", "PGPASSWORD", "DB_PASS", "AWS_SECRET_ACCESS_KEY",
            "INPUT_GITHUB_TOKEN", "NEXT_PUBLIC_MAPBOX_TOKEN", "NEW_RELIC_TOKEN", "TIME_API_TOKEN", "RATE_LIMITER_TOKEN",
            "PGPASS", "DBPASS", "smtpPass", "SENTRY_DSN", "GOOGLE_APPLICATION_CREDENTIALS", "REDIS_AUTH",
            "AZURE_STORAGE_CONNECTION_STRING", "API_TOKENS",
        )),
        *((name, False) for name in (
            "MAX_TOKENS", "MAX_NUM_BATCHED_TOKENS", "TOKENIZERS_PARALLELISM", "pad_token",
            "eos_token", "time_to_first_token", "time_per_output_token",
            "token_count", "TOKEN_LIMIT", "NEXT_TOKENS", "compass", "bypass",
            "inter_token_latency", "KEYCLOAK_URL", "MONKEY", "BYPASS", "LOG_LEVEL",
            "MODEL_NAME", "PATH",
        )),
    ],
)  # fmt: skip
def test_names_of_secrets(name, secret):
    """
    Names of environment variables that hold a secret, and such as only sound like it.
    """
    assert looks_secret(name) is secret


LOG = "its log ends with:\nconnecting to postgres://app:s3cret@db/x with --api-key=s3cret\nAuthorization: Bearer s3cret"


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_masks_what_it_quotes(name):
    """
    Each error of the kit: its text, its arguments, its repr, and a copy of it.
    """
    error = getattr(errors, name)(LOG, 5)
    for seen in (error, copy.copy(error)):
        assert isinstance(seen, CanaryError)
        assert "s3cret" not in f"{seen} {seen!r} {seen.args}"
        assert seen.args[1] == 5
        assert "postgres://app:***@db/x with --api-key=***" in seen.args[0]


def test_an_ending_masks_what_it_quotes():
    """
    However it is shown; its outcome stays.
    """
    ending = Ending("failed", LOG)
    assert "s3cret" not in f"{ending} {ending!r} {ending._repr_html_()}"
    assert "postgres://app:***@db/x" in ending.sentence
    assert ending.outcome == "failed"
