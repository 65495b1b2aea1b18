#!/bin/sh
set -e
export A=1 B="$C"
pip install -q torch==2.5.1 'numpy>=1'
python -m train --lr ${LR:-1} "$@"
