#!/usr/bin/env bash
# Makes an image of the MiniStack in the virtual environment that the first argument is the Python of, and calls it by the second: what runs on this machine runs there.
set -euo pipefail
python=$1 name=$2
bin=$(dirname "$python")
environment=$(dirname "$bin")
library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
interpreter=$(readlink -f "$python")
readarray -t libraries < <({
    ldd "$interpreter"
    find "$library" "$environment/lib" -name '*.so' -exec ldd {} +
} | sed -n 's/^[^/]*\(\/[^ :]*\) (.*/\1/p' | sort -u)
# What nothing here asks for, which is most of it.
unused=(test tests __pycache__ ensurepip 'config-3*' idlelib tkinter pip 'botocore/data/[a-hj-r]*/*')
tar --create --dereference --absolute-names "${unused[@]/#/--exclude=*/}" "$environment" "$interpreter" "$library" "${libraries[@]}" |
    docker import --change "ENV PATH=$bin" --change "ENTRYPOINT [\"$python\", \"-m\", \"ministack\"]" - "$name"
