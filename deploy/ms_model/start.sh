# With arguments: run a `peerloan` command. Without: train the first champion if the store has none,
# then wait for commands (`docker-compose run` or `exec`).
set -eu
[ $# -eq 0 ] || exec peerloan "$@"

if ! { [ -r /books ] && [ -x /books ]; }; then
    echo "/books can't be read by user $(id -u)" >&2
    exit 1
fi
for book in /books/first /books/first.csv /books/first.csv.gz /books/first.parquet; do
    [ ! -e "$book" ] || set -- "$@" "$book"
done
if [ $# -gt 1 ]; then
    echo "expected one first book, given: $*" >&2
    exit 1
fi
[ ! -e /books/loan.toml ] || set -- "$@" --definition /books/loan.toml

# A shell handles a signal at once only while it waits for a background job.
trap 'kill $! 2>/dev/null || true; wait; exit 143' TERM INT
peerloan bootstrap "$@" &
wait $!
echo "waiting; train anew with: docker-compose run --rm ms_model train /books/BOOK --promote" >&2
sleep infinity &
wait $!
