"""`Judge`: a language model behind an OpenAI-compatible endpoint, asked by tasks whose scoring asks one.

Tasks ask in their own ways, through `requests` or the openai package (httpx), at the addresses and for the models that they
have in their code. Inside `asked` such a request goes to the judge, whatever its address, and its answer is kept on disk.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from fitprune.errors import FitPruneError
from fitprune.files import replacing
from harness.results.sources import folder_digest

TIMEOUT = 60.0  # seconds for one answer


class _Stopped(BaseException):
    """What a request ends in that nobody answers: no `Exception`, which tasks take for a reason to wait and to ask again."""


class Judge:
    """One model of an endpoint; answers are read from `folder` where a request of the same content was answered before.

    Args:
        url: up to and without `/chat/completions`, such as http://localhost:8000/v1.
    """

    def __init__(self, url: str, model: str, folder: Path) -> None:
        self.url, self.model, self.folder = url, model, folder

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The response to the body of a chat completion. Raises FitPruneError, in one line, where none comes."""
        body = asked | {"model": self.model}
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        kept = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        if kept.is_file():
            return json.loads(kept.read_text(encoding="utf-8"))
        found = _fetched(f"{self.url}/chat/completions", text.encode(), TIMEOUT)
        try:
            if not isinstance(found["choices"][0]["message"]["content"], str):
                raise TypeError
        except (KeyError, IndexError, TypeError):
            raise FitPruneError(f"the judge at {self.url} gave no chat completion: {str(found)[:120]}") from None
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as file:
            file.write_text(json.dumps(found), encoding="utf-8")
        return found

    def known(self, task: Path) -> dict[str, str]:
        """What decides its verdicts beside the answers: its model, and the sources with the prompts of a task's folder."""
        import lmms_eval.llm_judge

        shared = Path(lmms_eval.llm_judge.__file__).parent
        return {"model": self.model, "prompts": f"{folder_digest(task)}-{folder_digest(shared)}"}


@functools.cache
def open_judge(given: str) -> Judge | None:
    """The judge at `URL` or `URL#MODEL`; None for an empty text.

    Raises FitPruneError, in one line, unless the endpoint lists its models and says with the model which is meant.
    """
    if not given:
        return None
    url, _, model = given.partition("#")
    url = url.rstrip("/").removesuffix("/chat/completions")
    if not url.startswith(("http://", "https://")):
        raise FitPruneError(f"--judge {given} is no address of an endpoint, such as http://localhost:8000/v1")
    listed = _fetched(f"{url}/models", None, 10.0)
    models = [str(entry["id"]) for entry in listed.get("data") or () if isinstance(entry, dict) and "id" in entry]
    if model and model not in models:
        raise FitPruneError(f"the judge at {url} has no model {model}; it has {', '.join(models) or 'none'}")
    if not model and len(models) != 1:
        raise FitPruneError(f"the judge at {url} has {len(models)} models; name one, as {url}#MODEL: {', '.join(models)}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fitprune-bench" / "judge"
    return Judge(url, model or models[0], cache)


@contextlib.contextmanager
def asked(judge: Judge | None, suite: str) -> Iterator[None]:
    """Inside, requests go to the judge. Raises FitPruneError, in one line, where there is none, or it does not answer."""
    said: list[str] = []

    def answered(body: Any) -> dict[str, Any]:
        try:
            question = json.loads(body or b"null")
        except ValueError:
            question = None
        if judge is None or not isinstance(question, dict) or "messages" not in question:
            said.append(f"suite '{suite}': its scoring asks a language model; give --judge URL, an OpenAI-compatible endpoint")
            raise _Stopped
        try:
            return judge.answer(question)
        except FitPruneError as error:
            said.append(f"suite '{suite}': {error}")
            raise _Stopped from None

    try:
        with contextlib.ExitStack() as stack:
            for patch in _patches(answered):
                stack.enter_context(patch)
            yield
    except _Stopped:
        raise FitPruneError(said[0]) from None


def _patches(answered: Callable[[Any], dict[str, Any]]) -> Iterator[Any]:
    """What has the clients of this process answer requests by `answered`, body -> response."""
    import requests

    def of_requests(_: Any, request: Any, **__: Any) -> Any:
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response._content = json.dumps(answered(request.body)).encode()
        return response

    yield mock.patch.object(requests.adapters.HTTPAdapter, "send", of_requests)
    for name in ("httpx", "httpx2"):  # the openai package asks through the one or the other
        with contextlib.suppress(ImportError):
            yield from _patches_of(importlib.import_module(name), answered)


def _patches_of(httpx: Any, answered: Callable[[Any], dict[str, Any]]) -> Iterator[Any]:
    def of_httpx(_: Any, request: Any) -> Any:
        return httpx.Response(200, json=answered(request.read()), request=request)

    async def of_async(_: Any, request: Any) -> Any:
        return httpx.Response(200, json=answered(await request.aread()), request=request)

    yield mock.patch.object(httpx.HTTPTransport, "handle_request", of_httpx)
    yield mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", of_async)


def _fetched(url: str, body: bytes | None, timeout: float) -> dict[str, Any]:
    key = os.environ.get("OPENAI_API_KEY", "none")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            found = json.loads(response.read())
    except urllib.error.HTTPError as error:
        raise FitPruneError(
            f"the judge at {url} answers {error.code}: {' '.join(error.read(200).decode(errors='replace').split())}"
        ) from None
    except TimeoutError:
        raise FitPruneError(f"the judge at {url} gave no answer in {timeout:g} s") from None
    except (OSError, ValueError) as error:
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise FitPruneError(f"the judge at {url} gave no answer in {timeout:g} s") from None
        raise FitPruneError(f"the judge at {url} cannot be asked: {' '.join(str(error).split())[:120]}") from None
    return found if isinstance(found, dict) else {}
