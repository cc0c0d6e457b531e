#!/usr/bin/env bash
# Kills a conversion with SIGKILL at random moments until it has been killed so often, lets it go on each time, and
# compares what comes out with the file made in one go. Threads and instruction set change from run to run.
#
#     convert/tests/kills.sh SOURCE TYPE [KILLS [SEED]]
#
# SOURCE: a checkpoint or GGUF file, e.g. of the 560m shape. Works in the current folder, in `kills.tmp`, which is
# removed in the end; needs room for two files. The program: $HUOZI_CONVERT, else target/release/huozi-convert.
set -euo pipefail

source=$1 type=$2 kills=${3:-30}
RANDOM=${4:-1}
program=${HUOZI_CONVERT:-$(dirname "$0")/../../target/release/huozi-convert}
mkdir kills.tmp
trap 'rm -r kills.tmp' EXIT
out=kills.tmp/out.gguf

started=$(date +%s%N)
"$program" "$source" -t "$type" -o kills.tmp/whole.gguf
whole_ms=$((($(date +%s%N) - started) / 1000000))
expected=$(sha256sum <kills.tmp/whole.gguf)
rm kills.tmp/whole.gguf
echo "in one go: $whole_ms ms, $expected"

killed=0 finished=0 resumed=0
while ((killed < kills)); do
    # Some of the runs are let go to their end.
    limit_ms=$((RANDOM % 4 == 0 ? whole_ms * 100 : RANDOM % (whole_ms + 1)))
    threads=$((RANDOM % 2 + 1))
    isa=$([ $((RANDOM % 3)) = 0 ] && echo scalar || true)
    env ${isa:+HUOZI_ISA=$isa} "$program" "$source" -t "$type" -o $out --threads $threads >kills.tmp/log 2>&1 &
    pid=$!
    timeout "$(printf '%d.%03d' $((limit_ms / 1000)) $((limit_ms % 1000)))" tail --pid=$pid -s 0.01 -f /dev/null || true
    if kill -KILL $pid 2>/dev/null; then killed=$((killed + 1)); fi
    wait $pid 2>/dev/null || true
    if grep -q 'resumed at' kills.tmp/log; then resumed=$((resumed + 1)); fi
    if grep -q '^error' kills.tmp/log; then cat kills.tmp/log; exit 1; fi
    if [ -e $out ]; then
        [ "$(sha256sum <$out)" = "$expected" ] || { echo "other bytes after $killed kills"; exit 1; }
        # A kill between the renaming and the end may leave the journal, nothing else.
        [ ! -e $out.partial ] || { echo "a partial file beside the whole one"; exit 1; }
        finished=$((finished + 1))
        rm -f $out $out.journal
    fi
done
if [ -e $out.partial ]; then
    "$program" "$source" -t "$type" -o $out
    [ "$(sha256sum <$out)" = "$expected" ] || { echo "other bytes after $killed kills"; exit 1; }
    finished=$((finished + 1))
fi
echo "$killed kills, $resumed runs resumed, $finished files, all with equal bytes"
