"""The root of all exceptions of this package, and their tree.

A PeerLoanError is meant for the user: the command line prints its message and exits with 1, or with
2 for wrong settings. Any other exception is a bug of this package or a failure of the system
(OSError). Some of these classes also derive from ValueError, OSError or RuntimeError.

PeerLoanError
├── SettingsError                   settings: a settings file
│   └── MonitoringConfigError       monitoring: the file of monitoring rules
├── NotRegularFile, FileTooLarge    regular_files: a file of the wrong type or size
├── DefinitionError                 loan: a loan definition
├── WrongValue                      loan: a value that its field does not accept
├── BookError                       book: a book that can't be used
│   └── EmptyFileError
├── InexactError                    book: a value that another column type can't hold
├── WrongLineError                  book: a line of JSON that is not a row
├── _LeftOutError                   book: a column that a drafted definition leaves out
├── ScorecardError                  model: a scorecard's file
├── OnnxModelError                  model: an ONNX file
│   └── OnnxTimeLimit
├── RegistryError                   registry: a version or a store
│   ├── BundleError                 a version that can't be used
│   ├── StoreError                  a request that the store refuses
│   │   └── BreakingChange
│   └── StoreFault                  a store that can't be read or written
│       └── StoreTimeout
├── LedgerError                     database: the ledger
│   ├── LedgerUnavailable           it can't be reached, or can't write
│   │   └── LedgerReadOnly
│   ├── LostSeal
│   ├── RecordRefused
│   ├── KeyInUse
│   ├── UnknownEvent, AlreadyAcknowledged   monitoring: an event can't be acknowledged
│   └── CountedElsewhere            monitoring: another process counts
├── InputUnreadable                 ledger: stored inputs that are not a valid loan
├── DeliveryFailed                  monitoring: an alert that was not delivered
├── TrainingError                   training: a book that no model can be trained on
├── TurnAbandoned                   worker: a turn that took too long
├── _Refused                        worker: retraining that is refused
├── TokensError                     web: the file of tokens
├── UnguardedView                   web: a view that names no scopes
├── RequestError                    web: a refused request, with its problem details
├── TensorError                     web: a tensor of the inference protocol
├── PasteError                      web: a pasted text that is not one loan
├── AddressError                    web: an address that the server can't listen on
├── NoWorkerStarted                 web: no worker process of the server started
└── CommandError                    cli: a refused command
"""


class PeerLoanError(Exception):
    """The root of the exceptions of this package."""
