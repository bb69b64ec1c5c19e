"""Systems to compare on test collections, each typed ``NAME=SPEC``: an encoder, a reranking or a fusion.

::

    bm25                            BM25
    MODEL                           a sparse or token model: folder, short name or id
    dense:MODEL                     a dense single-vector model of sentence-transformers, searched exactly
    rerank:FIRST>SECOND             the best of system FIRST, ordered by the token vectors of system SECOND
    rerank:FIRST>model:MODEL        ... of a model that encodes no other documents than those of FIRST
    rerank:FIRST+OTHER>SECOND       ... the best of several systems
    fusion:A+B                      systems fused by reciprocal rank
    fusion:A*0.3+B*0.7              systems fused by weighted scores, each query's from 0 to 1

``bm25`` and MODEL take settings, as in ``bm25,k1=0.9`` or ``MODEL,kind=slim,dtype=bfloat16``. FIRST, OTHER, SECOND, A and B are
names of systems before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...index.errors import RepresentationError
from ...retrieval.encoders.base import Encoder, MultiVectorEncoder, makes_tokens
from ...retrieval.encoders.dense import DenseEncoder, load_dense_encoder
from ...retrieval.encoders.loader import shipped_defaults
from ...retrieval.encoders.registry import load_encoder
from ...retrieval.encoders.tower import TowerEncoder
from ...retrieval.terminal import json_or_text, require_models, split_setting

AnyEncoder = Encoder | DenseEncoder

_NAME = r"[^\s=,:+*>|]+"


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder as it was typed.

    Attributes
    ----------
    model : str or None
        None: BM25.
    settings : tuple of (str, str)
        Names and values.
    dense : bool
        A dense single-vector model.
    """

    model: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    dense: bool = False


@dataclass(frozen=True, kw_only=True)
class System:
    """What is compared.

    Attributes
    ----------
    name : str
    kind : {"encoder", "rerank", "fusion"}
    encoder : EncoderSpec or None
        Which ranks documents, or orders them again; None of a fusion.
    parts : tuple of str
        Names of the systems whose documents are reranked or fused.
    weights : tuple of float or None
        Of the parts of a fusion by scores; None: by ranks.
    """

    name: str
    kind: Literal["encoder", "rerank", "fusion"]
    encoder: EncoderSpec | None = None
    parts: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None


def parse_systems(texts: Iterable[str]) -> list[System]:
    """Read systems as the module's table has them.

    Raises
    ------
    ValueError
        A text of another form, a name that is taken, or a part that is no system before it.
    """
    systems: dict[str, System] = {}
    for text in texts:
        name, _, spec = text.partition("=")
        if not re.fullmatch(_NAME, name) or not spec:
            raise ValueError(f"a system is NAME=SPEC, with a name without spaces and the signs = , : + * > |, not {text!r}")
        if name in systems:
            raise ValueError(f"two systems are called {name!r}")
        systems[name] = _parse(name, spec, systems)
    if not systems:
        raise ValueError("nothing to compare: name systems, as in bm25=bm25")
    return list(systems.values())


def _parse(name: str, spec: str, before: Mapping[str, System]) -> System:
    kind, _, rest = spec.partition(":")
    if kind == "rerank":
        return _parse_rerank(name, rest, before)
    if kind == "fusion":
        return _parse_fusion(name, rest, before)
    return System(name=name, kind="encoder", encoder=_parse_encoder(rest if kind == "dense" else spec, dense=kind == "dense"))


def _parse_rerank(name: str, text: str, before: Mapping[str, System]) -> System:
    first, _, second = text.partition(">")
    if not first or not second:
        raise ValueError(f"{name}: a reranking is rerank:FIRST>SECOND or rerank:FIRST>model:MODEL, not 'rerank:{text}'")
    parts = tuple(first.split("+"))
    _check_parts(name, parts, before)
    if second.startswith("model:"):
        return System(name=name, kind="rerank", encoder=_parse_encoder(second.removeprefix("model:")), parts=parts)
    _check_parts(name, [second], before)
    if before[second].kind != "encoder":
        raise ValueError(f"{name}: {second!r} has no vectors of its own to rerank with")
    return System(name=name, kind="rerank", encoder=before[second].encoder, parts=parts)


def _parse_fusion(name: str, text: str, before: Mapping[str, System]) -> System:
    pairs = [part.partition("*")[::2] for part in text.split("+")]
    parts, weights = tuple(part for part, _ in pairs), [weight for _, weight in pairs]
    if len(parts) < 2:
        raise ValueError(f"{name}: a fusion is fusion:A+B, of two systems or more, not 'fusion:{text}'")
    _check_parts(name, parts, before)
    if "*" not in text:
        return System(name=name, kind="fusion", parts=parts)
    return System(name=name, kind="fusion", parts=parts, weights=tuple(_weight(name, weight) for weight in weights))


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"{name}: every system of a weighted fusion has a weight > 0, as in fusion:A*0.3+B*0.7, not {text!r}")
    return weight


def _check_parts(name: str, parts: Sequence[str], before: Mapping[str, System]) -> None:
    unknown = [part for part in parts if part not in before]
    if unknown:
        raise ValueError(f"{name}: {unknown[0]!r} is no system before it; there are {', '.join(before) or 'none'}")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{name}: names a system twice in {'+'.join(parts)}")


def _parse_encoder(text: str, *, dense: bool = False) -> EncoderSpec:
    model, *texts = text.split(",")
    settings = [split_setting(each, f"a setting of {model!r}") for each in texts]
    names = [name for name, _ in settings]
    if not model or len(set(names)) < len(names) or {"model", "device"} & set(names):
        raise ValueError(f"{text!r} is no MODEL,NAME=VALUE,... with settings named once, other than model and device")
    return EncoderSpec(model=None if model == "bm25" and not dense else model, settings=tuple(settings), dense=dense)


def load_encoders(systems: Sequence[System], *, device: str = "cpu") -> dict[EncoderSpec, AnyEncoder]:
    """Make every encoder of the systems once.

    Raises
    ------
    RepresentationError
        A model is not recognised, lacks its weights, or makes no token vectors but is to rerank.
    ValueError
        A setting is unknown or out of range.
    MissingDependencyError
        A model without torch and transformers.
    """
    encoders: dict[EncoderSpec, AnyEncoder] = {}
    for system in systems:
        spec = system.encoder
        if spec is None:
            continue
        if spec not in encoders:
            try:
                encoders[spec] = _load(spec, device)
                _ = encoders[spec].fingerprint  # reads the weights' files, so that what is broken fails now
            except RepresentationError as error:
                raise RepresentationError(f"{system.name}: {error}") from error
            except (ValueError, TypeError) as error:
                raise ValueError(f"{system.name}: {error}") from error
        if system.kind == "rerank":
            token_encoder(encoders[spec], system.name)
    made: list[object] = list(encoders.values())
    towers = [encoder for encoder in made if isinstance(encoder, TowerEncoder)]
    for i, tower in enumerate(towers):  # such as SPLADE and inference-free queries on the same documents
        any(tower.share_documents(other) for other in towers[:i])
    return encoders


def token_encoder(encoder: AnyEncoder, name: str) -> MultiVectorEncoder:
    """Return the encoder as one of token vectors; ``name`` is the system's that reranks with it.

    Raises
    ------
    RepresentationError
        When it is none.
    """
    if isinstance(encoder, DenseEncoder) or not makes_tokens(encoder):
        raise RepresentationError(f"{name}: a {encoder.kind} encoder makes no token vectors, which reranking is done with")
    return encoder


def _load(spec: EncoderSpec, device: str) -> AnyEncoder:
    settings: dict[str, Any] = {name: json_or_text(value) for name, value in spec.settings}
    if spec.model is None:
        return load_encoder(**settings)
    require_models(f"the model {spec.model}")
    settings = {**shipped_defaults(spec.model, device), **settings}
    if spec.dense:
        return load_dense_encoder(spec.model, device=device, **settings)
    return load_encoder(settings.pop("kind", None), model=spec.model, device=device, **settings)
