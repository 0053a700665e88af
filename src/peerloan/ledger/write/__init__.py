"""Writing decisions: group commit, sealed chains, idempotency and the database drivers.

| module | what it does |
|---|---|
| `group_commit` | `LedgerWriter` stores the decisions of a serving process's requests |
| `batch_writer` | `BatchWriter` stores the decisions of a book |
| `chain` | `Chain` seals records and appends them, one transaction for each call |
| `chain_opening` | adds a chain to the ledger |
| `driver` | `WriterDriver`, the interface of `sqlite_driver` and `postgres_driver` |
| `entries`, `idempotency` | what is stored together, and the keys of repeated requests |
| `loan_json`, `reason_json` | the texts that a record contains |

Thread safety: `LedgerWriter` may be called by any thread, `BatchWriter` by one. Each has a thread
of its own, and only this thread uses its `Chain` and its `WriterDriver`, which are not thread-safe.

Ownership: a writer owns its threads and its chain; a chain owns its database connection. All of
them borrow the `Database` and the `Seal`, and leave these open.

Errors, all of them LedgerError: LedgerUnavailable: the database does not respond or can't be
written to; try again later. RecordRefused: the database refuses a record; another attempt would
fail too. KeyInUse: another request with the same idempotency key is being
committed. LostSeal: the seal's key is missing or is another one; an operator must act. After
LedgerUnavailable from a commit it is not known whether the decisions were stored: repeat it with
the same idempotency key.
"""
