"""The root of every exception that this package raises.

An exception of ours is an answer to the user: the command line prints it and exits with 1, or with
2 for wrong settings. Anything else is a fault of ours, or of the system (OSError). Those that
derive from ValueError, OSError or RuntimeError too may be caught as such.

PeerLoanError
├── SettingsError                   settings: a settings file
│   └── MonitoringConfigError       monitoring: the file of its settings
├── NotRegularFile, FileTooLarge    regular_files: a file that isn't read
├── DefinitionError                 loan: a loan definition
├── WrongValue                      loan: the value of a field
├── BookError                       book: a book that can't be read
│   └── EmptyFileError
├── InexactError                    book: a number without an exact text
├── WrongLineError                  book: a line of JSON
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
├── InputUnreadable                 ledger: stored inputs that are no loan
├── DeliveryFailed                  monitoring: an alert that was not delivered
├── TrainingError                   training: a book that no model can be made of
├── TurnAbandoned                   worker: a turn that took too long
├── _Refused                        worker: retraining that is refused
├── TokensError                     web: the file of tokens
├── UnguardedView                   web: a view that names no scopes
├── RequestError                    web: a request, by problem details
├── TensorError                     web: a tensor of the inference protocol
├── AddressError                    web: an address that can't be listened on
├── NoWorkerStarted                 web: a server without workers
└── CommandError                    cli: a command refuses
"""


class PeerLoanError(Exception):
    """The root of the exceptions of this package."""
