"""Verify: compare the disk, S3 and the database, and say what is wrong and what to do about it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple

from django.core.exceptions import FieldError, ValidationError
from django.db import DatabaseError

from django_dualstorage.core.differences import MENDED_BY_FIX, Difference, Found, Side, classify
from django_dualstorage.core.objects import bare_etag
from django_dualstorage.core.preflight import fold_hash, look_at
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.engine.pool import Pool, Stop
from django_dualstorage.engine.retry import Patience
from django_dualstorage.exceptions import JournalError, LockTimeoutError, S3Error, S3NotFoundError, UnmovableError
from django_dualstorage.hints import Kind
from django_dualstorage.inventory import Certified, Inventory
from django_dualstorage.operations.anonymous import look_in_anonymously, says_public
from django_dualstorage.operations.comparison import Batch, Comparison, inventory_of
from django_dualstorage.operations.deep import ChangingError, read_both
from django_dualstorage.operations.engines import MOST_WORKERS, Limits, pace_for_command, pair_for_command
from django_dualstorage.operations.gate import S3Watch, demand_local_truth, demand_same_volume
from django_dualstorage.operations.preflight import find_twins, of_odd
from django_dualstorage.operations.references import Reference, fields_of, is_outside, references, still_says
from django_dualstorage.operations.repair import brake
from django_dualstorage.operations.spool import Seen, Spool
from django_dualstorage.protocol.operation import Locked
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.records import NOTED_PER_KIND, RunNote, noted_run
from django_dualstorage.storage import DualWriteStorage

logger = logging.getLogger("django_dualstorage.verify")

#: A file this young may have a row that is not committed yet. Seconds.
_ROW_MAY_FOLLOW: Final = 300.0
#: A file as young as this may be written to again without getting another version. Seconds.
_SETTLE: Final = 2.0
_TRIES: Final = 3
#: Objects that ``anonymous`` asks for.
ASKED_ANONYMOUSLY: Final = 100

#: What the comparison of the two sides finds, what its options add, and what only looks at the disk.
_SIDES: Final = frozenset(
    {
        Difference.MISSING_ON_S3,
        Difference.MISSING_LOCALLY,
        Difference.DIFFERS,
        Difference.UNSTAMPED,
        Difference.EXTRA_ON_S3,
        Difference.HINT_PENDING,
        Difference.FAILED,
        Difference.BAD_NAME,
        Difference.SYMLINK,
        Difference.SPECIAL,
        Difference.UNREADABLE,
        Difference.NFC_TWIN,
        Difference.CASE_TWIN,
        Difference.HIDDEN,
        Difference.TEMPORARY,
        Difference.EMPTY,
    }
)
_DATABASE: Final = frozenset({Difference.ROW_WITHOUT_FILE, Difference.FILE_WITHOUT_ROW})


@dataclass(frozen=True)
class Wanted:
    """What to verify, and how closely."""

    #: Only names that begin so.
    prefix: str = ""
    #: Look for rows without a file and files without a row.
    database: bool = True
    #: Read the bytes of both sides.
    deep: bool = False
    #: The share of the files that are read, above 0 up to 1.
    sample: float = 1.0
    #: Decides which files are in the sample; the same seed takes the same ones.
    seed: int = 0
    #: Ask without credentials.
    anonymous: bool = False
    #: Do what backfill and repair would do about what was found.
    fix: bool = False
    workers: int = MOST_WORKERS

    def takes(self, name: str) -> bool:
        """Whether the sample has this name."""
        if self.sample >= 1.0:
            return True
        digest = blake2b(name.encode(), digest_size=8, salt=self.seed.to_bytes(16, "big")).digest()
        return int.from_bytes(digest, "big") < self.sample * 2**64


class _Looked(NamedTuple):
    """What a look at one name under its lock has shown."""

    name: str
    found: Found | None = None
    certified: Certified | None = None
    #: Somebody was writing it all the time.
    busy: bool = False
    #: Bytes that were read of each side.
    read: int = 0


@dataclass
class Verification:
    """What a run has found. The findings themselves lie in the spool; :meth:`close` it."""

    wanted: Wanted
    phase: str = ""
    spool: Spool = field(default_factory=Spool)
    #: Files on the disk and objects on S3 that were compared.
    files: int = 0
    objects: int = 0
    #: Names that were written to by living operations all the time: nothing is said of them.
    busy: int = 0
    #: Files of which every byte was read on both sides, and their bytes.
    files_read: int = 0
    bytes_read: int = 0
    #: What --fix did, by outcome, and what it could not do.
    fixed: Counter[Outcome] = field(default_factory=Counter)
    #: Models whose rows could not be read, and why.
    unread: dict[str, str] = field(default_factory=dict)
    #: What was left out, in sentences.
    remarks: list[str] = field(default_factory=list)
    run_id: int | None = None
    seconds: float = 0.0
    interrupted: bool = False
    #: What is wrong with the run as a whole.
    error: str = ""

    @property
    def counts(self) -> dict[Difference, int]:
        """How many there are of each kind."""
        return {kind: self.spool.counts[kind] for kind in Difference if self.spool.counts[kind] > 0}

    @property
    def problems(self) -> int:
        """How many findings have to be mended."""
        return sum(count for kind, count in self.counts.items() if kind.is_problem)

    def found(self, kind: Difference | None = None, limit: int | None = None) -> Iterator[Found]:
        """The findings, of one kind or all."""
        return self.spool.found(kind, limit)

    def as_json(self) -> dict[str, Any]:
        """Everything but the findings, as plain data."""
        return {
            "run": self.run_id,
            "phase": self.phase,
            "prefix": self.wanted.prefix,
            "files": self.files,
            "objects": self.objects,
            "counts": {str(kind): count for kind, count in self.counts.items()},
            "problems": self.problems,
            "busy": self.busy,
            "deep": self.wanted.deep,
            "sample": self.wanted.sample,
            "seed": self.wanted.seed,
            "files_read": self.files_read,
            "bytes_read": self.bytes_read,
            "fixed": {str(outcome): count for outcome, count in self.fixed.items()},
            "unread_models": self.unread,
            "remarks": self.remarks,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "error": self.error,
        }

    def close(self) -> None:
        """Give the temporary files back."""
        self.spool.close()


class Verify:
    """One verification of one storage. Changes nothing, unless told to fix."""

    def __init__(
        self,
        storage: DualWriteStorage,
        wanted: Wanted,
        *,
        limits: Limits | None = None,
        patience: Patience | None = None,
        tell: Callable[[str], None] = logger.info,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``tell`` hears a sentence between the stages; ``clock`` gives seconds since the epoch."""
        self._storage = storage
        self._limits = limits or Limits()
        self._patience = patience or Patience()
        self._pair = storage.pair
        self._wanted = wanted
        self._tell = tell
        self._clock = clock
        self._watch = S3Watch(storage.pair)
        #: What --fix has done so far, by outcome.
        self.fixed: Counter[Outcome] = Counter()
        #: The names that were asked for without credentials; empty for the list of the bucket.
        self._asked: frozenset[str] = frozenset()

    def run(self, stop: Stop, on_result: Callable[[FileResult], None]) -> Verification:
        """Verify; ``on_result`` hears of each file that was looked at or read, whatever was found. The caller closes
        what is returned.

        Raises RefusedError, S3Error if S3 cannot be used at all, JournalError, SpoolError, FileNotFoundError if
        MEDIA_ROOT is not there.
        """
        demand_same_volume(self._storage)
        if self._wanted.fix:
            demand_local_truth(self._storage, "verify --fix")
        started = time.monotonic()
        self._pace = pace_for_command(self._wanted.workers, self._limits, stop=lambda: bool(stop))
        self._pair = pair_for_command(
            self._storage.pair,
            pace=self._pace,
            stop=lambda: bool(stop),
            on_choice=lambda choice: logger.info("The engine is %s", choice),
            patience=self._patience,
        )
        result = Verification(self._wanted, self._storage.policy.phase.value, fixed=self.fixed)
        try:
            with noted_run(self._storage.alias, "verify", self._parameters()) as note:
                result.run_id = note.id
                if note.why_not:
                    result.remarks.append(f"This run is not kept in the database: {note.why_not}.")
                self._stages(result, stop, on_result, note)
                result.interrupted = bool(stop)
                result.seconds = time.monotonic() - started
                self._note(result, note)
                if self._wanted.fix and not stop:
                    self._fix(result, stop, on_result, note)
                    result.interrupted = bool(stop)
                    result.seconds = time.monotonic() - started
                note.end(result.as_json(), result.counts, result.bytes_read, interrupted=result.interrupted)
        except BaseException:
            result.close()
            raise
        return result

    def _parameters(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self._wanted).items() if name != "workers"}

    def _stages(self, result: Verification, stop: Stop, on_result: Callable[[FileResult], None], note: RunNote) -> None:
        inventory = inventory_of(self._pair) if self._pair.journal.exists else None
        self._compare(result, inventory, stop, note)
        if not stop:
            self._pass_preflight(result)
            self._look_at_doubts(result, inventory, stop, on_result, note)
        if self._wanted.database and not stop:
            self._compare_database(result, stop)
        if self._wanted.deep and not stop:
            self._read(result, stop, on_result, note)
        if self._wanted.anonymous and not stop:
            self._ask_anonymously(result, stop, note)

    # -- both sides ------------------------------------------------------------------------------------------------

    def _compare(self, result: Verification, inventory: Inventory | None, stop: Stop, note: RunNote) -> None:
        prefix = self._wanted.prefix
        # A listing that was stopped is not compared with anything.
        listing = takewhile(lambda entry: not stop, self._pair.s3.list_all(prefix))
        with closing(Comparison(listing, inventory, prefix=prefix)) as comparison:
            result.objects = comparison.objects
            for batch in comparison.of(self._storage.root):
                if stop:
                    return
                self._sift(result, batch)
                note.beat(result.spool.counts, 0)
        result.spool.index()
        find_twins(result.spool)
        if stop:
            return
        if result.objects and not result.files and not prefix:
            result.remarks.append(
                f"MEDIA_ROOT {self._storage.root} has no files, but S3 has {result.objects:,} under its prefix. Is the "
                "volume mounted?"
            )

    def _sift(self, result: Verification, batch: Batch) -> None:
        """Note what is seen at once, and who has to be looked at."""
        location = self._pair.s3.configuration.location
        seen, doubts, found = [], [], []
        for name, local, listed, certified, odd in batch.others:
            if odd is not None:
                found.append(of_odd(odd))
                continue
            movable = True
            if local is not None:
                result.files += 1
                traits = list(look_at(name, local.size, location))
                movable = all(trait.kind is not Difference.BAD_NAME for trait in traits)
                found += traits
            seen.append(
                Seen(
                    name,
                    None if local is None else fold_hash(name),
                    None if local is None else local.mtime_ns,
                    listed is not None,
                )
            )
            if movable and not certified:
                doubts.append(name)
        result.spool.see(seen, doubts)
        result.spool.find(found)

    def _pass_preflight(self, result: Verification) -> None:
        """Say what the disk has before anything is read or moved."""
        counts = result.counts
        if counts:
            summary = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
            self._tell(f"On the disk, before anything is moved: {summary}.")

    def _look_at_doubts(
        self,
        result: Verification,
        inventory: Inventory | None,
        stop: Stop,
        on_result: Callable[[FileResult], None],
        note: RunNote,
    ) -> None:
        """Look again at each name that the two lists do not show to be equal, now under its lock; and at each that
        an operation has left a hint for.
        """
        damaged: list[Found] = []

        def on_damaged(path: str, error: JournalError) -> None:
            damaged.append(Found(Difference.FAILED, path, Side.DISK, str(error)))

        hinted = self._pair.journal.names_with_dead_hints(on_damaged)
        result.spool.see((), (name for name in hinted if name.startswith(self._wanted.prefix)))
        result.spool.find(damaged)
        certified: list[Certified] = []
        found: list[Found] = []

        def write_down() -> None:
            result.spool.find(found)
            found.clear()
            if inventory is not None:
                inventory.note(certified)
            certified.clear()

        for looked in Pool(self._look, self._wanted.workers, stop, self._pace.limit).run(result.spool.doubts()):
            on_result(FileResult(looked.name, Outcome.CERTIFIED))
            self._note_busy(result, looked)
            if looked.found:
                found.append(looked.found)
            if looked.certified:
                certified.append(looked.certified)
            if len(found) + len(certified) >= 500:
                write_down()
                note.beat(result.spool.counts, 0)
        write_down()

    def _note_busy(self, result: Verification, looked: _Looked) -> None:
        if looked.busy:
            result.busy += 1
            result.spool.leave_open([looked.name])

    def _look(self, name: str) -> _Looked:
        self._watch.demand()
        try:
            for _ in range(_TRIES):
                with self._locked(name):
                    looked = self._look_once(name)
                if looked is not None:
                    return looked
        except LockTimeoutError:
            logger.info("%s is written by another operation all the time; nothing is said of it", name)
        except UnmovableError as error:
            return _Looked(name, Found(Difference(error.reason), name, Side.DISK, str(error)))
        except FileNotFoundError:
            pass  # deleted within these microseconds, by somebody who goes around the storage: written to, that is
        except S3Error as error:
            return _Looked(name, Found(Difference.FAILED, name, Side.UNKNOWN, f"{error}; {error.advice}"))
        except OSError as error:
            return _Looked(name, Found(Difference.FAILED, name, Side.UNKNOWN, str(error)))
        return _Looked(name, busy=True)

    def _locked(self, name: str) -> AbstractContextManager[None]:
        """Where there is no journal no operation has ever begun, and a look must not make one."""
        return Locked(self._pair, name) if self._pair.journal.exists else nullcontext()

    def _look_once(self, name: str) -> _Looked | None:
        """None if somebody who goes around the storage wrote meanwhile."""
        pair = self._pair
        hints = pair.journal.dead_hints_of(name)
        local = pair.local.version(name)
        remote = pair.s3.head(name, patient=True)
        if pair.local.version(name) != local:
            return None
        found = classify(
            name,
            local,
            remote,
            local_truth=self._storage.policy.local_truth,
            hinted=bool(hints),
            deleted=any(hint.record.kind is Kind.DELETE for hint in hints),
            own_ops={hint.record.op_id for hint in hints},
        )
        if local is not None and found is not None:
            # Whether it could be copied at all: a link that leads out, a file that may not be read.
            pair.local.open_movable(name)[0].close()
        if found is None and local is not None and remote is not None:
            settled = self._clock() - local.mtime_ns / 1e9 > _SETTLE
            certified = Certified(name, local.size, local.mtime_ns, bare_etag(remote.etag)) if settled else None
            return _Looked(name, certified=certified)
        return _Looked(name, found)

    # -- the database ----------------------------------------------------------------------------------------------

    def _compare_database(self, result: Verification, stop: Stop) -> None:
        prefix = self._wanted.prefix
        if not any(True for _ in fields_of(self._storage)):
            result.remarks.append("No FileField uses this storage, so files and rows were not compared.")
            return
        began = self._clock()

        def on_unread(model: str, why: str) -> None:
            result.unread[model] = why

        found = (
            (reference.name, reference.model, str(reference.pk), reference.field)
            for reference in references(self._storage, on_unread)
            if reference.name.startswith(prefix)
        )
        while not stop and (chunk := list(islice(found, 5000))):
            result.spool.refer(chunk)
        if stop:
            return
        result.spool.index()
        dangling = (one for one in result.spool.dangling() if not stop)
        result.spool.find(filter(None, map(self._still_dangling, dangling)))
        if result.unread:
            unread = ", ".join(f"{model} ({why})" for model, why in sorted(result.unread.items()))
            result.remarks.append(
                f"The rows of these models could not be read, so files without a row were not looked for: {unread}."
            )
            return
        younger_ns = int((began - _ROW_MAY_FOLLOW) * 1e9)
        result.spool.find(
            Found(Difference.FILE_WITHOUT_ROW, name, Side.DATABASE, "no FileField of any model has this name")
            for name in result.spool.unreferenced(younger_ns)
            if not stop
        )

    def _still_dangling(self, row: tuple[str, str, str, str]) -> Found | None:
        """Look again: the file may have come since the walk, or the row be gone."""
        name, model, pk, column = row
        who = f"{model} {pk}, field {column}"
        try:
            # The disk is not asked for a path outside MEDIA_ROOT: what is there is none of this storage's files.
            outside = is_outside(self._storage, name)
            if not outside and self._pair.local.version(name) is not None:
                return None
            if not still_says(self._storage, Reference(model, pk, column, name)):
                return None
            if outside:
                why = "is no name of a file below MEDIA_ROOT"
                return Found(Difference.ROW_WITHOUT_FILE, name, Side.DATABASE, f"named by {who}; {why}")
            if self._pair.s3.head(name, patient=True) is not None:
                return None
        except UnmovableError:
            pass  # a name that S3 cannot have is not on S3
        except (DatabaseError, ValidationError, FieldError, ValueError, TypeError) as error:
            logger.info("%s could not be asked again: %s", who, error)
        except (S3Error, OSError) as error:
            return Found(Difference.FAILED, name, Side.UNKNOWN, f"named by {who}: {error}")
        return Found(Difference.ROW_WITHOUT_FILE, name, Side.DATABASE, f"named by {who}; neither side has it")

    # -- the bytes -------------------------------------------------------------------------------------------------

    def _read(self, result: Verification, stop: Stop, on_result: Callable[[FileResult], None], note: RunNote) -> None:
        names = filter(self._wanted.takes, result.spool.on_both_sides())
        for looked in Pool(self._read_one, self._wanted.workers, stop, self._pace.limit).run(names):
            on_result(FileResult(looked.name, Outcome.CERTIFIED, looked.read))
            self._note_busy(result, looked)
            if looked.read or not (looked.found or looked.busy):
                result.files_read += 1
                result.bytes_read += looked.read
            if looked.found:
                result.spool.find([looked.found])
            note.beat(result.spool.counts, result.bytes_read)

    def _read_one(self, name: str) -> _Looked:
        self._watch.demand()
        try:
            size, found = read_both(self._pair, name)
        except UnmovableError as error:
            return _Looked(name, Found(Difference(error.reason), name, Side.DISK, str(error)))
        except S3NotFoundError:
            return self._look(name)  # it was there a moment ago
        except (ChangingError, FileNotFoundError):
            # An object may have another stamp under the ETag that the inventory knows: nobody has looked at it yet.
            looked = self._look(name)
            known = looked.found is None or looked.found.kind is Difference.UNSTAMPED  # which was told before
            return _Looked(name, busy=True) if known else looked
        except S3Error as error:
            detail = f"could not be read: {error}; {error.advice}"
            return _Looked(name, Found(Difference.FAILED, name, Side.UNKNOWN, detail))
        except OSError as error:
            return _Looked(name, Found(Difference.FAILED, name, Side.UNKNOWN, f"could not be read: {error}"))
        return _Looked(name, found, read=size)

    def _ask_anonymously(self, result: Verification, stop: Stop, note: RunNote) -> None:
        if why := says_public(self._pair):
            result.remarks.append(f"Not asked without credentials, since the bucket is meant to be public: {why}.")
            return
        names = result.spool.names_on_s3(ASKED_ANONYMOUSLY, self._wanted.seed)
        # What was public once is asked for again, whatever the sample has, or nobody would ever see that it is closed.
        known = note.open_names(Difference.PUBLIC, self._wanted.prefix, ASKED_ANONYMOUSLY)
        names = list(dict.fromkeys([*names, *known]))
        result.spool.find(look_in_anonymously(self._pair, names, stop))
        if stop:
            return
        self._asked = frozenset(["", *names])
        result.remarks.append(f"The list of the bucket and {len(names):,} objects were asked for without credentials.")

    # -- what comes of it ------------------------------------------------------------------------------------------

    def _note(self, result: Verification, note: RunNote) -> None:
        for kind in result.counts:
            note.found(result.found(kind, NOTED_PER_KIND))
        if result.interrupted:
            return
        looked_for = set(_SIDES)
        if self._wanted.database and not result.unread:
            looked_for |= _DATABASE
        if self._wanted.deep and self._wanted.sample >= 1.0:
            looked_for.add(Difference.BYTES_DIFFER)
        # What is not written down, for there is too much of it, was perhaps found again.
        whole = [kind for kind in looked_for if result.spool.counts[kind] <= NOTED_PER_KIND]
        note.not_found_again(whole, self._wanted.prefix, result.spool.unjudged)
        if self._asked:
            # The list of the bucket has no name that could begin with the prefix.
            note.not_found_again([Difference.PUBLIC], "", lambda names: self._left_open(result, names))

    def _left_open(self, result: Verification, names: list[str]) -> set[str]:
        """Those of ``names`` that were not asked for without credentials, or to no clear answer."""
        return {name for name in names if name not in self._asked} | result.spool.unjudged(names)

    def _fix(self, result: Verification, stop: Stop, on_result: Callable[[FileResult], None], note: RunNote) -> None:
        """What backfill and repair would do about the names that were found, by the same steps under the same locks."""
        todo = {kind: count for kind, count in result.counts.items() if kind in MENDED_BY_FIX}
        if not todo:
            return
        summary = ", ".join(f"{count:,} {kind}" for kind, count in todo.items())
        self._tell(f"Fixing, as backfill and repair would: {summary}.")
        brake(self._storage, [found.name for kind in _FROM_HINTS for found in result.found(kind)])

        def fixed(found: Found) -> tuple[Found, FileResult]:
            self._watch.demand()
            self._let_settle(found.name)
            local = self._pair.local.version(found.name)
            with self._pace.carrying(local.size if local else 0):
                # Asked last: over an S3 that has become the truth nothing may be copied.
                policy = demand_local_truth(self._storage, "verify --fix")
                return found, reconcile(self._pair, policy, found.name, now=self._clock())

        found = (one for kind in todo for one in result.found(kind))
        mended: list[Found] = []

        def write_down() -> None:
            result.spool.forget(mended)
            note.fixed(mended)
            mended.clear()

        for one, outcome in Pool(fixed, self._wanted.workers, stop, self._pace.limit).run(found):
            on_result(outcome)
            self.fixed[outcome.outcome] += 1
            self._watch.hear(outcome)
            if not outcome.outcome.is_problem and outcome.clean:
                mended.append(one)
            if len(mended) >= 500:
                write_down()
        write_down()

    def _let_settle(self, name: str) -> None:
        local = self._pair.local.version(name)
        if local is not None:
            age = self._clock() - local.mtime_ns / 1e9
            if 0 <= age < _SETTLE:
                time.sleep(_SETTLE - age)


_FROM_HINTS: Final = (Difference.HINT_PENDING, Difference.EXTRA_ON_S3)
