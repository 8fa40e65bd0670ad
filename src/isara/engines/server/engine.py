"""An engine that is a server, or several: prompts go to an OpenAI-compatible `/v1/completions`.

The servers hold the weights of one model: the base model's where they are given by their addresses, or those of each
model of the run in turn where a command starts one for each. Before a row is kept, each server goes on greedily with a
few of the prompts that it is asked, and so do the run's own weights in transformers: a server of other weights, with
another tokenizer or with a template of its own is found out by that.

With `load` the servers that are given by their addresses load the adapter of each of the run's models beside the base
model, by vLLM's `/v1/load_lora_adapter`.
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from isara.engines.server.check import ALTERNATIVES, TOKENS, OwnWords, answered, asked_for, difference
from isara.engines.server.client import (
    COMPLETIONS,
    Asked,
    Identity,
    base_url,
    identify,
    prompt_tokens,
    read_completion,
    read_scores,
)
from isara.engines.server.process import DEATH_SECONDS, ServedModel, WriteGGUF
from isara.errors import ConfigError, IsaraError, ModelError
from isara.http import HttpClient, NoReply, Refused, Service, post_shared
from isara.marks import clean
from isara.models import local_folder
from isara.protocols import EngineFactory
from isara.records import Completion, Prompt, Sampling

log = logging.getLogger("isara")

_POLL, _POLL_TIMEOUT = 0.25, 30.0  # seconds between two looks at a server that starts, and of one look
_BAD_REQUEST, _NOT_FOUND = (400, 413, 422), 404
_LOAD, _UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How servers are found and asked; each is the config's `engine` field of that name.

    Attributes:
        url: Their addresses; empty where `serve` is given.
        load: Whether they load the adapters of the run's models.
        serve: The command that starts one for a model.
        served_model: Its name at the server.
        prompt: "ids", "text", or "auto".
        check_weights: Whether greedy texts are compared.
        concurrency: Requests under way at each server.
        timeout: Seconds that a request may take.
        start_timeout: Seconds until a started server has to answer.
        key_env: The environment variable with the key.
        retries: How often a request is made again.
        backoff: Seconds before the first of these.
    """

    url: tuple[str, ...] = ()
    load: bool = False
    serve: str | None = None
    served_model: str | None = None
    prompt: str = "auto"
    check_weights: bool = True
    concurrency: int = 8
    timeout: float = 300.0
    start_timeout: float = 600.0
    key_env: str | None = None
    retries: int = 3
    backoff: float = 1.0

    def service(self, url: str) -> Service:
        """One of the servers, as it is asked."""
        return Service(base_url(url), self.key_env, self.concurrency, self.retries, self.timeout, self.backoff)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What an engine of servers needs beside them.

    Attributes:
        local: Opens the run's own weights, for the comparison.
        special_tokens: Gives the special tokens of a model's tokenizer, before which a text ends.
        write_gguf: Makes {gguf}.
        base: The model that servers of `url` have been started with.
        on_progress: Is called with the tokens generated and the rows done so far in a call.
    """

    local: EngineFactory
    special_tokens: Callable[[str], Sequence[str]]
    write_gguf: WriteGGUF
    base: str = ""
    on_progress: Callable[[int, int], None] | None = None


@dataclass
class _Open:
    """Servers that are ready to be asked."""

    clients: list[HttpClient]
    asked: Asked
    special_tokens: Sequence[str] = ()
    checked: bool = False
    dead: list[HttpClient] = field(default_factory=list)


class ServerEngines:
    """Opens a model as an engine of servers.

    Args:
        options: How servers are found and asked.
        around: What an engine needs beside them.

    Raises:
        ConfigError: An address is not one that a key may be sent to.
    """

    def __init__(self, options: ServerOptions, around: Around) -> None:
        for url in options.url:
            HttpClient(options.service(url))
        self.options = options
        self._around = around
        self._identity: Identity | None = None

    def key(self) -> dict[str, Any]:
        """What completions depend on beside model, prompt, sampling and seed: the command, or what the server says.

        Raises:
            ModelError: No server of `engine.url` answers.
        """
        options = self.options
        key: dict[str, Any] = {"kind": "server", "prompt": options.prompt}
        if options.serve:
            return key | {"serve": options.serve, "model": options.served_model}
        if self._identity is None:
            self._identity = _identified([HttpClient(options.service(url)) for url in options.url], options)[1]
        return key | {"model": self._identity.model, "owner": self._identity.owner}

    def __call__(self, model: str, /) -> "ServerEngine":
        """An engine for the model; no server is asked or started yet."""
        return ServerEngine(model, self.options, self._around)


class ServerEngine:
    """One model at one or several servers, which are started or asked for the first time when they are needed.

    Args:
        model: The folder or name of the model whose weights they are to have.
        options: How they are found and asked.
        around: What else is needed.
    """

    exact = False  # servers batch as requests come, and sums depend on the batch

    def __init__(self, model: str, options: ServerOptions, around: Around) -> None:
        self.model, self.options, self._around = model, options, around
        self._process: ServedModel | None = None
        self._open: _Open | None = None
        self._adapter: tuple[list[HttpClient], str | None] = ([], None)  # who has loaded it, and its name there

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt, in order; completion i is drawn with seed i (its lowest 31 bits).

        Raises:
            ModelError: No server answers, one has other weights or too small a context, or the one that was started
                ended.
            ConfigError: There is no key.
        """
        if not prompts:
            return []
        opened = self._checked(prompts, sampling)
        done: dict[int, Completion] = {}
        cut_at = (*sampling.stop, *opened.special_tokens)

        def keep(number: int, reply: dict[str, Any]) -> None:
            completion = read_completion(reply, cut_at)
            if completion.finish == "length" and completion.tokens < sampling.max_new_tokens:
                size = len(prompts[number].ids)
                raise ModelError(
                    f"a server cut a text after {completion.tokens} tokens of {sampling.max_new_tokens}, after a "
                    f"prompt of {size}: give it a context of at least {size + sampling.max_new_tokens} tokens for "
                    "each request"
                )
            done[number] = completion
            if self._around.on_progress:
                self._around.on_progress(sum(each.tokens for each in done.values()), len(done))

        rows = zip(prompts, seeds, strict=True)
        self._post([opened.asked.body(prompt, sampling, seed) for prompt, seed in rows], keep, prompts, sampling)
        return [done[number] for number in range(len(prompts))]

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Natural-log probability of each continuation (ids) after its prompt, summed over its tokens.

        Raises:
            ModelError: The servers give none, and as `generate`.
        """
        return [sum(scores) for scores in self.token_logprobs(prompts, continuations)]

    def token_logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probability of each token of each continuation after its prompt and the tokens before.

        Raises:
            ModelError: As `logprobs`.
        """
        rows = [(prompt, list(tail)) for prompt, tail in zip(prompts, continuations, strict=True)]
        asked = [number for number, (_, tail) in enumerate(rows) if tail]
        done: dict[int, list[float]] = {}
        if asked:
            # Greedy texts of a few tokens, to know the servers by.
            opened = self._checked([rows[number][0] for number in asked], Sampling(0.0, 1.0, TOKENS))
            if not opened.asked.ids:
                raise self._no_scores("prompts go as text, whose tokens are not known")

            def keep(place: int, reply: dict[str, Any]) -> None:
                prompt, tail = rows[asked[place]]
                done[asked[place]] = read_scores(reply, len(prompt.ids), len(tail))

            try:
                self._post([opened.asked.scoring(*rows[number]) for number in asked], keep)
            except (Refused, NoReply) as error:
                raise self._no_scores(str(error)) from error
        return [done.get(number, []) for number in range(len(rows))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        (loaded, adapter), self._adapter = self._adapter, ([], None)
        self._open = None
        if process is not None:
            process.close()
        if adapter is not None:
            _unload(loaded, adapter)

    def _post(
        self,
        bodies: Sequence[Mapping[str, Any]],
        keep: Callable[[int, dict[str, Any]], None],
        prompts: Sequence[Prompt] = (),
        sampling: Sampling | None = None,
    ) -> None:
        """Has the living servers answer all bodies; one that doesn't is asked no more."""
        opened = self._open
        assert opened is not None
        try:
            dead = post_shared(opened.clients, COMPLETIONS, bodies, keep)
        except IsaraError as error:
            self._explain(error, prompts, sampling)
        for client, failure in dead.items():
            log.warning("%s; its rows were made elsewhere, and it is asked no more", failure)
            opened.clients.remove(client)

    def _explain(self, error: IsaraError, prompts: Sequence[Prompt], sampling: Sampling | None) -> NoReturn:
        """Raises what happened: a server that died says more than the request that it left without a reply."""
        # It may have broken off only a moment ago.
        patience = DEATH_SECONDS if isinstance(error, NoReply) else 0.0
        if self._process is not None and (death := self._process.death(patience)):
            raise ModelError(death) from error
        if isinstance(error, Refused) and error.status in _BAD_REQUEST and prompts and sampling:
            longest = max(len(prompt.ids) for prompt in prompts)
            raise ModelError(
                f"{error}; the longest prompt has {longest} tokens and asks for {sampling.max_new_tokens} more: see "
                "that its context holds them"
            ) from error
        raise error

    def _checked(self, prompts: Sequence[Prompt], sampling: Sampling) -> _Open:
        """The servers, opened and known to have the run's weights."""
        if self._open is not None and self._open.checked:
            return self._open
        words = asked_for(prompts, sampling)
        if self.options.check_weights:
            words = answered(words, self._around.local, self.model)  # before a server takes the memory
        opened = self._open = self._opened(words.prompts[0], words.sampling)
        if words.said:
            opened.clients = _living(opened.clients, lambda client: self._compare(client, opened, words))
        opened.checked = True
        return opened

    def _opened(self, first: Prompt, greedy: Sampling) -> _Open:
        """The servers, each of which answers, and whether they take ids."""
        options = self.options
        if options.serve:
            self._process = ServedModel(options.serve, str(local_folder(self.model)), self._around.write_gguf)
            clients, identity = self._waited(self._process)
        else:
            clients, identity = _identified([HttpClient(options.service(url)) for url in options.url], options)
        if options.load:
            self._adapter = _load(clients, self.model, self._around.base)
            clients = list(self._adapter[0])
            identity = replace(identity, model=self._adapter[1] or identity.model)
        ids = options.prompt == "ids"
        if options.prompt == "auto":
            taken: list[bool] = []
            clients = _living(clients, lambda client: taken.append(_takes_ids(client, identity, first, greedy)))
            ids = all(taken)
        log.info(
            "%s serves %s; prompts go as %s",
            ", ".join(client.address for client in clients),
            clean(identity.model, 200),
            "ids" if ids else "text",
        )
        return _Open(clients, Asked(identity, ids), self._around.special_tokens(self.model))

    def _waited(self, process: ServedModel) -> tuple[list[HttpClient], Identity]:
        """The server that was started, as soon as it completes a word.

        Raises:
            ModelError: It ended, or didn't get so far in time.
        """
        begun = time.monotonic()
        reason: NoReply | None
        patient = self.options.service(process.url)
        client = HttpClient(replace(patient, retries=0, timeout=min(_POLL_TIMEOUT, patient.timeout)))
        while True:
            try:
                identity = identify(client, self.options.served_model)
                body = Asked(identity, False).body(Prompt("a", ()), Sampling(0.0, 1.0, 1), 0)
                client.post_all(COMPLETIONS, [body], lambda number, reply: None)
                reason = None
            except NoReply as error:
                reason = error
            if death := process.death():
                raise ModelError(death) from reason
            if reason is None:
                if usurper := process.usurper():
                    raise ModelError(usurper)
                return [HttpClient(patient)], identity
            if time.monotonic() - begun > self.options.start_timeout:
                raise ModelError(
                    f"the server that `engine.serve` started gave no completion within "
                    f"{self.options.start_timeout:g} s; {process.last_words()}: mend the command, or raise "
                    "`engine.start_timeout`"
                ) from reason
            time.sleep(_POLL)

    def _compare(self, client: HttpClient, opened: _Open, words: OwnWords) -> None:
        """Raises a ModelError where the server doesn't go on as the run's own weights do."""
        replies: dict[int, dict[str, Any]] = {}
        asked, sampling = opened.asked, words.sampling

        def keep(number: int, reply: dict[str, Any]) -> None:
            read_completion(reply, ())
            replies[number] = reply

        try:
            try:
                bodies = [asked.alternatives(prompt, sampling, ALTERNATIVES) for prompt in words.prompts]
                client.post_all(COMPLETIONS, bodies, keep)
            except (Refused, NoReply) as error:
                if isinstance(error, Refused) and error.status not in _BAD_REQUEST:
                    raise
                # It gives no log-probabilities, which some say by failing; or it takes the prompts in no way.
                _ask_otherwise(client, [asked.body(each, sampling, 0) for each in words.prompts], keep, error)
            ends = (*sampling.stop, *opened.special_tokens)
            found = difference(words, [replies[number] for number in range(len(words.prompts))], ends)
        except IsaraError as error:
            self._explain(error, words.prompts, sampling)
        if found:
            raise ModelError(
                f"the server at {client.address} has other weights or another tokenizer than {clean(self.model, 200)}: "
                f"{found}: serve that model, in the number format of `engine.dtype`, or set `engine.check_weights` to "
                "false if it is the same one in coarser numbers"
            )

    def _no_scores(self, cause: str) -> ModelError:
        return ModelError(
            f"expected a server that gives log-probabilities of a prompt's tokens, found none ({cause}): "
            "leave out `select` scores and `questions.focus: worst`, evaluate with "
            "`engine.evaluate_with: transformers`, and let judges ask another engine"
        )


def _quick(client: HttpClient) -> HttpClient:
    """The same server, of which a word about itself is wanted: that takes no time."""
    return HttpClient(replace(client.service, timeout=min(_POLL_TIMEOUT, client.service.timeout)))


def _ask_otherwise(
    client: HttpClient,
    bodies: Sequence[Mapping[str, Any]],
    keep: Callable[[int, dict[str, Any]], None],
    failure: IsaraError,
) -> None:
    """Asks a server in another way than it failed of; one that gave no reply has had its retries.

    Raises:
        NoReply: As the failure, where it gives none again.
    """
    if not isinstance(failure, NoReply):
        return client.post_all(COMPLETIONS, bodies, keep)
    if failure.hung:
        raise failure
    try:
        HttpClient(replace(client.service, retries=0)).post_all(COMPLETIONS, bodies, keep)
    except NoReply:
        raise failure from None


def _identified(clients: Sequence[HttpClient], options: ServerOptions) -> tuple[list[HttpClient], Identity]:
    """The servers that answer, and what they all say of their model.

    Raises:
        NoReply: None of them answers.
        ModelError: They differ, or don't name the model.
    """
    said: dict[HttpClient, Identity] = {}

    def ask(client: HttpClient) -> None:
        try:
            said[client] = identify(_quick(client), options.served_model)
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise
            if options.served_model is None:
                raise ConfigError(
                    f"{error}; where a server has no list of models, name its own as `engine.served_model`"
                ) from error
            said[client] = Identity(options.served_model, "")

    _living(clients, ask)
    found = set(said.values())
    if len(found) > 1:
        raise ModelError(
            "expected the same model at each of `engine.url`, found "
            + ", ".join(f"{clean(each.model, 100)} at {client.address}" for client, each in said.items())
            + ": serve one model, or name what all of them have as `engine.served_model`"
        )
    return list(said), found.pop()


def _living(clients: Sequence[HttpClient], step: Callable[[HttpClient], None]) -> list[HttpClient]:
    """The servers that a step gets a reply of; the others are left out, unless none is left.

    Raises:
        NoReply: None of them gives one.
        IsaraError: What else the step raises.
    """
    living: list[HttpClient] = []
    failures: list[NoReply] = []
    for client in clients:
        try:
            step(client)
        except NoReply as error:
            failures.append(error)
        else:
            living.append(client)
    if not living:
        raise failures[0]
    for failure in failures:
        log.warning("%s; it is left out", failure)
    return living


def _load(clients: Sequence[HttpClient], model: str, base: str) -> tuple[list[HttpClient], str | None]:
    """Has the servers load a model's adapter under a name that is new each time, None for the base model; which did.

    Raises:
        ModelError: A server loads none, or the model has none.
    """
    if model == base:
        return list(clients), None
    folder = Path(model).resolve() / "adapter"
    if not folder.is_dir():
        raise ModelError(
            f"expected an adapter of {clean(model, 200)} for `engine.load`, found none: train with `train.method: lora`"
        )
    name = f"isara-{secrets.token_hex(8)}"
    loaded: list[HttpClient] = []

    def load(client: HttpClient) -> None:
        client.tell(_LOAD, {"lora_name": name, "lora_path": str(folder)})
        loaded.append(client)

    try:
        return _living(clients, load), name
    except IsaraError as error:
        _unload(loaded, name)
        if not isinstance(error, Refused):
            raise
        raise ModelError(
            f"{error}; for `engine.load` start vLLM with --enable-lora, a --max-lora-rank of at least "
            f"`train.lora_r` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it can read {folder}"
        ) from error


def _unload(clients: Sequence[HttpClient], name: str) -> None:
    for client in clients:
        try:
            client.tell(_UNLOAD, {"lora_name": name})
        except IsaraError as error:  # it takes room at the server and changes nothing here
            log.warning("%s keeps the adapter %s: %s", client.address, name, error)


def _takes_ids(client: HttpClient, identity: Identity, prompt: Prompt, greedy: Sampling) -> bool:
    """Whether the server goes on with ids, as many as they are.

    Raises:
        NoReply: It doesn't go on with text either.
    """
    counted: list[int | None] = []
    token = replace(greedy, max_new_tokens=1)

    def keep(number: int, reply: dict[str, Any]) -> None:
        read_completion(reply, ())
        counted.append(prompt_tokens(reply))

    try:
        client.post_all(COMPLETIONS, [Asked(identity, True).body(prompt, token, 0)], keep)
    except (Refused, NoReply) as error:
        log.info("%s takes no ids (%s)", client.address, error)
        if isinstance(error, NoReply):  # some servers fail where they mean to refuse
            _ask_otherwise(client, [Asked(identity, False).body(prompt, token, 0)], keep, error)
        return False
    return counted in ([None], [len(prompt.ids)])
