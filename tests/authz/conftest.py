"""What authz's tests share: documents to a generation, requests, and tokens made with keys of this run."""

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from authz.__main__ import build
from authz.attributes import Attributes
from authz.config import AuthzSection
from authz.decision import Decision
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.policy import Policies
from edgekeeper.sources import DiskSources

NOW_US = 1_700_000_000_000_000
NOW_S = NOW_US // 1_000_000
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"


class Issuer:
    """An identity provider with one key of each family."""

    name = "https://idp.example.com"

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()

    def jwk(self, key: Any, **members: Any) -> dict[str, Any]:
        algorithm = {
            rsa.RSAPrivateKey: RSAAlgorithm,
            ec.EllipticCurvePrivateKey: ECAlgorithm,
            ed25519.Ed25519PrivateKey: OKPAlgorithm,
        }
        convert = next(made for kind, made in algorithm.items() if isinstance(key, kind))
        public = json.loads(convert.to_jwk(key.public_key()))
        public.pop("key_ops", None)
        return public | members

    @property
    def jwks(self) -> dict[str, Any]:
        return {
            "keys": [
                self.jwk(self.rsa, kid="rsa", alg="RS256"),
                self.jwk(self.ec, kid="ec"),
                self.jwk(self.ed, kid="ed"),
            ]
        }

    def claims(self, **claims: Any) -> dict[str, Any]:
        usual = {"iss": self.name, "aud": "orders", "sub": "alice", "iat": NOW_S, "exp": NOW_S + 600}
        return {key: value for key, value in (usual | claims).items() if value is not ...}

    def token(
        self,
        key: Any = None,
        *,
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token signed by our RSA key; a claim of `...` is left out."""
        kid = {"RS256": "rsa", "ES256": "ec", "EdDSA": "ed"}.get(algorithm, "rsa")
        return jwt.encode(
            self.claims(**claims),
            key or self.rsa,
            algorithm=algorithm,
            headers={"kid": kid} | (headers or {}),
        )

    def bearer(self, **claims: Any) -> dict[str, str]:
        """The header of a token with these claims."""
        return {"authorization": f"Bearer {self.token(**claims)}"}


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Policies]:
    """Return the generation of documents as users write them."""

    def loaded(text: str, **section: Any) -> Policies:
        (tmp_path / "documents").mkdir(exist_ok=True)
        (tmp_path / "documents" / "policy.yaml").write_text(textwrap.dedent(text))
        entries = section.pop("policies", [{"path": str(tmp_path / "documents")}])
        model = AuthzSection.model_validate({"listen": "unix:/tmp/a.sock", "policies": entries} | section)
        return build(model, DiskSources())

    return loaded


@pytest.fixture
def corp(issuer: Issuer) -> str:
    """A JwtProvider document."""
    spec = {
        "issuer": issuer.name,
        "audiences": ["orders"],
        "algorithms": ["RS256", "ES256", "EdDSA"],
        "keys": {"inline": issuer.jwks},
    }
    document = {
        "apiVersion": "edgekeeper/v1",
        "kind": "JwtProvider",
        "metadata": {"name": "corp"},
        "spec": spec,
    }
    return json.dumps(document)


@pytest.fixture(scope="session")
def secret_provider() -> Callable[..., str]:
    """Return the document of a JwtProvider whose key is a secret: `secret_provider("corp", claims={...})`."""

    def document(name: str = "corp", **spec: Any) -> str:
        usual = {
            "issuer": Issuer.name,
            "audiences": ["orders"],
            "algorithms": ["HS256"],
            "keys": {"inline": {"keys": [{"kty": "oct", "k": SECRET}]}},
        }
        head = {"apiVersion": "edgekeeper/v1", "kind": "JwtProvider", "metadata": {"name": name}}
        return json.dumps(head | {"spec": usual | spec}) + "\n---\n"

    return document


@pytest.fixture
def policy(load: Callable[..., Policies], corp: str) -> Callable[..., Policies]:
    """Return the generation of one policy for a.example, given what stands in its `spec`, with the provider `corp`."""

    def policies(spec: str, *, more: str = "", hosts: str = "[a.example]", **section: Any) -> Policies:
        head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n"
        body = f"hosts: {hosts}\n" + textwrap.dedent(spec)
        return load(
            head + textwrap.indent(body, "  ") + "\n---\n" + corp + "\n" + textwrap.dedent(more), **section
        )

    return policies


@pytest.fixture
def ask() -> Callable[..., Decision]:
    """Return the decision on a request for a.example: `ask(policies, "GET /x", {"name": "value"})`."""

    def asked(
        policies: Policies,
        line: str = "GET /",
        headers: dict[str, str | list[str]] | None = None,
        *,
        host: str = "a.example",
        client_ip: str | None = "192.0.2.1",
        now_us: int = NOW_US,
        cache: TokenCache | None = None,
        **attributes: Any,
    ) -> Decision:
        method, _, target = line.partition(" ")
        lines = {
            name: tuple(value) if isinstance(value, list) else (value,)
            for name, value in (headers or {}).items()
        }
        request = Attributes(
            method=method,
            target=target,
            host=host,
            headers=lines,
            source_address=client_ip,
            **attributes,
        )
        return decide(
            policies,
            request,
            cache=TokenCache() if cache is None else cache,
            now_us=now_us,
            decision_id="id-1",
        )

    return asked


@pytest.fixture(scope="session")
def said() -> Callable[[Decision], tuple[str, str, str]]:
    """Return the effect of a decision, the rule and the reason."""
    return lambda decision: (decision.effect, decision.rule, decision.reason)


@pytest.fixture
def beside(tmp_path: Path) -> Callable[..., tuple[AuthzSection, Policies, DiskSources]]:
    """Write documents and files with tests beside them; return section, generation and sources."""

    def written(documents: str, **tests: str) -> tuple[AuthzSection, Policies, DiskSources]:
        directory = tmp_path / "documents"
        directory.mkdir(exist_ok=True)
        (directory / "policy.yaml").write_text(textwrap.dedent(documents))
        for name, text in tests.items():
            (directory / f"{name}_test.yaml").write_text(textwrap.dedent(text))
        entries = [{"path": str(directory)}]
        section = AuthzSection.model_validate({"listen": "unix:/tmp/a.sock", "policies": entries})
        sources = DiskSources()
        return section, build(section, sources), sources

    return written


@pytest.fixture
def with_cases(
    beside: Callable[..., tuple[AuthzSection, Policies, DiskSources]],
) -> Callable[..., tuple[AuthzSection, Policies, DiskSources]]:
    """Write documents and a test of their policy `api` beside them; return section, generation and sources."""

    def written(
        documents: str, cases: Sequence[dict[str, Any]], **spec: Any
    ) -> tuple[AuthzSection, Policies, DiskSources]:
        head = {"apiVersion": "edgekeeper/v1", "kind": "PolicyTest", "metadata": {"name": "t"}}
        test = head | {"spec": {"policy": "api", "cases": cases} | spec}
        return beside(documents, t=json.dumps(test, indent=1))

    return written
