"""Judges by name or from a YAML file: the one place where configuration becomes a judge."""

import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from isara.build.engines import build_engine
from isara.config import Config, fields, load_config
from isara.config.values import FREE
from isara.errors import ConfigError
from isara.files import file_hash, value_hash
from isara.judges.base import Judge, Kind, PairwiseJudge
from isara.own import beside, load_part, made
from isara.yaml_text import YamlError, parse_yaml

SHIPPED_JUDGES: tuple[str, ...] = ("offline-refusal", "offline-harm")
FORMS: Mapping[str, str] = types.MappingProxyType(
    {
        "judge: classifier": "a sequence classifier by name or folder",
        "judge: endpoint": "a language model behind an OpenAI-compatible endpoint, single or pairwise",
        "judge: local": "a local causal model by the likelihood of its options, single or pairwise",
        "judge: own": "a judge of your own: a module, or a file beside the judge's, and its name in it",
    }
)


class _File(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", protected_namespaces=())


class ClassifierFile(_File):
    """A judge's YAML file with `judge: classifier`; the fields are those of `ClassifierJudge`."""

    judge: Literal["classifier"]
    model: str
    kind: Kind = "harm"
    form: Literal["auto", "binary", "multi"] = "auto"
    positive: list[str] = []
    template: str | None = "BEGINNING OF CONVERSATION: USER: {question} ASSISTANT:{answer}"
    threshold: float = Field(0.5, ge=0, le=1)
    batch_size: int = Field(16, ge=1)
    max_length: int | None = Field(None, ge=1)
    device: str = "auto"
    trust_remote_code: bool = False


class PricesFile(_File):
    """Prices per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class EndpointFile(_File):
    """A judge's YAML file with `judge: endpoint`; the fields are those of `Endpoint`, the kind and the prompt."""

    judge: Literal["endpoint"]
    url: str
    model: str
    kind: Kind = "harm"
    prompt: str | None = None
    key_variable: str | None = "OPENAI_API_KEY"
    sampling: dict[str, Any] = {"temperature": 0, "max_tokens": 512}
    concurrency: int = Field(8, ge=1)
    retries: int = Field(6, ge=0)
    timeout: float = Field(120.0, gt=0)
    backoff: float = Field(1.0, ge=0)
    cache: str | None = None
    prices: PricesFile | None = None


class LocalFile(_File):
    """A judge's YAML file with `judge: local`: a causal model, the kind, the prompt, and how the model is loaded.

    `engine` is the section of that name of a run's config, for workers, a cluster or another engine.
    """

    judge: Literal["local"]
    model: str
    kind: Kind = "harm"
    prompt: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    engine: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _says_once(self) -> Self:
        twice = [name for name in ("device", "dtype", "trust_remote_code") if name in self.model_fields_set]
        if self.engine and twice:
            raise ValueError(f"expected `engine.{twice[0]}` beside `engine`, found `{twice[0]}` outside of it")
        return self


class OwnFile(_File):
    """A judge's YAML file with `judge: own`: where the user's own judge is, and what it is called with."""

    judge: Literal["own"]
    use: str
    options: dict[str, Any] = Field({})


JudgeFile = Annotated[ClassifierFile | EndpointFile | LocalFile | OwnFile, Field(discriminator="judge")]


def read_judge(spec: str) -> Judge:
    """The judge that a name or YAML file stands for.

    Raises:
        ConfigError: There is no such judge, or the file has a key or value without meaning.
        ModelError: Its model can't be found or does not fit.
    """
    if spec in SHIPPED_JUDGES:
        from isara.judges.offline import OfflineJudge

        return OfflineJudge("refusal" if spec == "offline-refusal" else "harm")
    given = _read(spec)
    if isinstance(given, ClassifierFile):
        from isara.judges.classifier import ClassifierJudge

        fields = given.model_dump(exclude={"judge", "model", "kind"})
        return ClassifierJudge(given.model, given.kind, **fields)
    if isinstance(given, EndpointFile):
        from isara.judges.endpoint import EndpointJudge

        return EndpointJudge(_endpoint(given), given.kind, given.prompt)
    if isinstance(given, OwnFile):
        judge: Judge = _own(given, spec)
        return judge
    from isara.judges.local import LocalJudge

    config = _engine(given, Path(spec).expanduser())
    return LocalJudge(_asker(given, config), _pinned(given, config), given.kind, given.prompt)


def read_pairwise(spec: str) -> PairwiseJudge:
    """The judge of two answers that a YAML file stands for; its `kind` plays no part.

    Raises:
        ConfigError: There is no such judge, it judges single answers only, or the file has a key or value without
            meaning.
        ModelError: Its model can't be found.
    """
    given = None if spec in SHIPPED_JUDGES else _read(spec)
    if isinstance(given, EndpointFile):
        from isara.judges.endpoint import PAIR_PROMPT, EndpointPairwiseJudge

        return EndpointPairwiseJudge(_endpoint(given), given.prompt or PAIR_PROMPT)
    if isinstance(given, LocalFile):
        from isara.judges.local import PAIR_PROMPT as LOCAL_PROMPT
        from isara.judges.local import LocalPairwiseJudge

        config = _engine(given, Path(spec).expanduser())
        return LocalPairwiseJudge(_asker(given, config), _pinned(given, config), given.prompt or LOCAL_PROMPT)
    if isinstance(given, OwnFile):
        pairwise: PairwiseJudge = _own(given, spec)
        return pairwise
    raise ConfigError(f"{spec} judges single answers and can't compare two: give a `judge: endpoint` or `judge: local`")


def _own(given: OwnFile, spec: str) -> Any:
    """A judge of the user's own; it says what it is in `pin`, and what it judges in `kind`."""
    place = beside(given.use, Path(spec).expanduser().parent)
    judge = made(load_part(place, "use", "beside the judge's file"), given.use, given.options)
    if not hasattr(judge, "pin"):
        raise ConfigError(
            f"{spec}: expected a judge, found `{given.use}` without `pin`: give it one, with its revision"
        )
    return judge


def _read(spec: str) -> ClassifierFile | EndpointFile | LocalFile | OwnFile:
    path = Path(spec).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"expected a judge ({', '.join(SHIPPED_JUDGES)} or a YAML file), found {spec!r}: check the name"
        )
    try:
        given = parse_yaml(path.read_text(encoding="utf-8"))
        adapter: TypeAdapter[ClassifierFile | EndpointFile | LocalFile | OwnFile] = TypeAdapter(JudgeFile)
        return adapter.validate_python(given)
    except YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error}: mend it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8, found byte 0x{error.object[error.start]:02x}: save it so") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): mend its rights") from None
    except ValidationError as error:
        # The value is left out: somebody may have put a key where none belongs.
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise ConfigError(f"{path}: {f'`{where}`: ' if where else ''}{_reason(first)}: mend it") from None


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "no such key"
    if error["type"].startswith("union_tag"):
        return "`judge` is to be classifier, endpoint, local or own"
    said = str(error["msg"]).removeprefix("Value error, ")
    return said[0].lower() + said[1:]


def _endpoint(given: EndpointFile) -> Any:
    from isara.judges.chat import Endpoint, Prices

    return Endpoint(
        url=given.url,
        model=given.model,
        key_variable=given.key_variable,
        sampling=given.sampling,
        concurrency=given.concurrency,
        retries=given.retries,
        timeout=given.timeout,
        backoff=given.backoff,
        cache=Path(given.cache).expanduser() if given.cache else None,
        prices=Prices(given.prices.prompt, given.prices.completion) if given.prices else None,
    )


def _engine(given: LocalFile, path: Path) -> Config | None:
    """The config of a judge's `engine` section, whose relative paths mean files beside the judge's; None without one.

    Raises:
        ConfigError: A key or value without meaning, or a file that isn't there.
    """
    if given.engine is None:
        return None
    section = dict(given.engine)
    if isinstance(use := section.get("use"), str):
        section["use"] = beside(use, path.parent)
        if section["use"] == use and use.rpartition(":")[0].endswith(".py"):
            raise ConfigError(f"{path}: `engine.use`: expected a file beside this one, found none at {use}: mend it")
    python = section.get("python")
    if isinstance(python, str) and os.sep in python:
        section["python"] = os.path.abspath(path.parent / os.path.expanduser(python))
    try:
        return load_config(None, model=given.model, engine=section, iterations=0)
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix('configuration: ')}: mend it") from None


def _asker(given: LocalFile, config: Config | None) -> Any:
    from isara.asking import Asker
    from isara.engines.transformers.engine import TransformersEngine
    from isara.render import open_renderer

    trust = config.engine.trust_remote_code if config else given.trust_remote_code
    renderer = open_renderer(given.model, trust_remote_code=trust)
    if config:
        return Asker(build_engine(config), given.model, renderer)
    options: dict[str, Any] = {
        "device": given.device,
        "dtype": given.dtype,
        "trust_remote_code": given.trust_remote_code,
    }
    return Asker(lambda model, /: TransformersEngine(model, **options), given.model, renderer)


def _pinned(given: LocalFile, config: Config | None) -> str:
    """Name and hash of the model, and of an engine that may score in another way than transformers do."""
    from isara.models import weights_hash

    name = Path(given.model).expanduser()
    pinned = f"{name.resolve().name if name.is_dir() else given.model}@{weights_hash(given.model)[:12]}"
    if config is None or config.engine.kind == "transformers" and config.engine.use is None:
        return pinned
    free = {key.partition(".")[2] for key, field in fields() if (field.json_schema_extra or {}) == FREE}
    told = {key: value for key, value in config.engine.model_dump(mode="json").items() if key not in free}
    if file := (config.engine.use or "").rpartition(":")[0]:
        told["use"] = file_hash(Path(file)) if file.endswith(".py") else config.engine.use
    if config.engine.kind == "server" and not config.engine.check_weights:
        told["at"] = config.engine.url  # weights that nobody has looked at
    return f"{pinned}+{config.engine.kind}:{value_hash(told)[:12]}"
