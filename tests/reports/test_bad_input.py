"""Bad input of every kind, over all commands: status 2 and one line that names what is wrong, before any work; no traceback."""

import argparse
import json
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitprune import Recipe
from fitprune.arguments import exit_status
from harness.plugin.options import DEST, OPTIONS, RunOptions
from harness.results.store import Store
from reports.console import main
from tests.support.boards import put
from tests.support.tiny_llava import save_tiny

LONG = "9" * 400
NAME = "n" * 300
ODD = "caf\udce9"  # a byte that is no UTF-8, as Python reads it from a command line
STATISTICS = ".x.json.fitprune-statistics"  # which a fit keeps that finds a picture to be none

# What is typed, and words of the one line. `pytest` stands for the options of pytest suites/.
INPUTS = """
nothing-such                                     | unknown command 'nothing-such'
Report                                           | unknown command 'Report'; did you mean report?
''                                               | unknown command ''

fit                                              | required: --model, --reduction, -o/--output; fitprune fit --help
fit --model llava-tiny --reduction 0.5           | required: -o/--output
fit -o x.json --reduction 0.5                    | required: --model
fit -o x.json --model ''  --reduction 0.5        | --model is empty
fit -o x.json --model llava-tinny --reduction .5 | unknown model 'llava-tinny'; did you mean llava-tiny
fit -o x.json --model no/such --reduction 0.5    | weights of 'no/such' are not on this machine
fit -o x.json --model ./no-such --reduction 0.5  | model folder './no-such' does not exist
fit -o x.json --model empty --reduction 0.5      | empty: no config.json
fit -o x.json --model a-file --reduction 0.5     | unknown model 'a-file'
fit -o x.json --model of-lists --reduction 0.5   | holds no JSON object
fit -o x.json --model of-bytes --reduction 0.5   | cannot be read as JSON
fit -o x.json --model deep --reduction 0.5       | cannot be read as JSON
fit -o x.json --model headless --reduction 0.5   | headless: no model.safetensors
fit -o x.json --model truncated --reduction 0.5  | model.safetensors
fit -o x.json --model llava-1.5-7b --reduction 1 | --reduction 1 is not between 0 and 1
fit -o x.json --model llava-tiny --reduction 0   | --reduction 0 is not between 0 and 1
fit -o x.json --model llava-tiny --reduction -1  | --reduction -1 is not between 0 and 1
fit -o x.json --model llava-tiny --reduction nan | --reduction nan is not between 0 and 1
fit -o x.json --model llava-tiny --reduction inf | --reduction inf is not between 0 and 1
fit -o x.json --model llava-tiny --reduction ''  | --reduction is empty
fit -o x.json --model llava-tiny --reduction ,   | --reduction , has an empty entry
fit -o x.json --model llava-tiny --reduction 60% | --reduction 60% is not between 0 and 1
fit -o x.json --model llava-tiny --reduction 0,5 | --reduction 0 is not between 0 and 1
fit -o x.json --model llava-tiny --reduction LONG | is not between 0 and 1
fit -o '' --model llava-tiny --reduction 0.5     | -o is empty
fit -o no/such/x.json --model llava-tiny --reduction 0.5 | cannot write no/such/x.json: its folder does not exist
fit -o a-file/x.json --model llava-tiny --reduction 0.5  | cannot write a-file/x.json: its folder does not exist
fit -o a-file --model llava-tiny --reduction 0.3,0.5     | a-file is a file; several recipes need a folder
fit -o a-file/ --model llava-tiny --reduction 0.5        | a-file is a file
fit -o - --model llava-tiny --reduction 0.5      | it is no name of a file
fit -o x.json --model llava-tiny,llava-next-tiny --reduction 0.5 | unknown model 'llava-tiny,llava-next-tiny'
fit -o x.json --model LLAVA-TINY --reduction 0.5 | did you mean llava-tiny
fit -o x.json --model llava-hf/llava-1.5-7b-hf@main --reduction 0.5 | did you mean llava-1.5-7b
fit -o x.json --model llava-tiny --reduction 50  | --reduction 50 is not between 0 and 1
fit -o x.json --model llava-tiny --reduction 0.5 0.6     | unrecognized arguments: 0.6
fit -o x.json --model llava-tiny --reduction 0.5 --samples 1e3    | --samples 1e3 is not a whole number
fit -o x.json --model llava-tiny --reduction 0.5 --device mps     | unknown device 'mps'; write cpu, cuda, cuda:N or auto
fit -o x.json --model llava-tiny --reduction 0.5 --data columns/calibration.parquet | --data takes mini, hub
fit -o NAME --model llava-tiny --reduction 0.5   | File name too long
fit -o x.json --model llava-tiny --reduction 0.5 --samples 0      | --samples 0 is not a whole number of at least 1
fit -o x.json --model llava-tiny --reduction 0.5 --samples -5     | --samples -5 is not a whole number
fit -o x.json --model llava-tiny --reduction 0.5 --samples 1.5    | --samples 1.5 is not a whole number
fit -o x.json --model llava-tiny --reduction 0.5 --samples LONG   | at most 999999999999
fit -o x.json --model llava-tiny --reduction 0.5 --samples ٣x     | --samples ٣x is not a whole number
fit -o x.json --model llava-tiny --reduction 0.5 --batch-size 0   | --batch-size 0 is not a whole number of at least 1
fit -o x.json --model llava-tiny --reduction 0.5 --batch-size ten | --batch-size ten is not a whole number
fit -o x.json --model llava-tiny --reduction 0.5 --mode one_pass  | --mode one_pass is not sequential or one-pass
fit -o x.json --model llava-tiny --reduction 0.5 --device gpu     | unknown device 'gpu'; write cpu, cuda, cuda:N or auto
fit -o x.json --model llava-tiny --reduction 0.5 --device cuda:99 | device 'cuda:99' is not here
fit -o x.json --model llava-tiny --reduction 0.5 --device ''      | --device is empty
fit -o x.json --model llava-tiny --reduction 0.5 --data ''        | --data is empty
fit -o x.json --model llava-tiny --reduction 0.5 --data no-such   | no-such
fit -o x.json --model llava-tiny --reduction 0.5 --data a-file    | a-file
fit -o x.json --model llava-tiny --reduction 0.5 --data empty     | no calibration samples
fit -o x.json --model llava-tiny --reduction 0.5 --data scrap     | calibration.parquet
fit -o x.json --model llava-tiny --reduction 0.5 --data columns   | question
fit -o x.json --model llava-tiny --reduction 0.5 --data nulls --samples 2   | row 1
fit -o x.json --model llava-tiny --reduction 0.5 --data paths --samples 1   | row 0
fit -o x.json --model llava-tiny --reduction 0.5 --data bytes --samples 2    | row 0
fit -o x.json --model llava-tiny --reduction 0.5 --data numbers --samples 1 | question
fit -o x.json --model llava-tiny --reduction 0.5 --keep a-file    | a-file
fit -o x.json --model llava-tiny --reduction 0.5 --keep=          | --keep is empty
fit -o x.json --model llava-tiny --reduction 0.5 --frobnicate     | unrecognized arguments: --frobnicate

show                                             | required: FILE
show ''                                          | an argument is empty
show no-such.json                                | cannot read the recipe no-such.json: No such file
show empty                                       | cannot read the recipe empty: Is a directory
show a-file                                      | is not JSON
show of-bytes/config.json                        | is not JSON
show list.json                                   | list.json is not a recipe
show bare.json                                   | it lacks drop
show huge.json                                   | huge.json
show deep.json                                   | deep.json is not JSON
show negative.json                               | negative.json is malformed
show newer.json                                  | format version 99; this release reads 2: upgrade
show published:                                  | published
show published:llava-1.5-7b                      | published
show published:llava-1.5-7b@61                   | there are llava-1.5-7b@10,20
show published:llava-9@60                        | published
show published:llava-1.5-7b@LONG                 | published
show recipe.json -o picture.gif                  | must end in .png or .svg
show recipe.json -o no/such/picture.png          | its folder does not exist
show recipe.json -o empty.png                    | it is a folder
show recipe.json -o ''                           | -o is empty
show recipe.json another                         | unrecognized arguments: another
show -                                           | cannot read the recipe -
show *.json                                      | cannot read the recipe *.json
show hf://me/recipe                              | cannot read the recipe hf:/me/recipe
show NAME                                        | File name too long
show ODD                                         | cannot read the recipe

models everything                                | unrecognized arguments: everything
models --image                                   | --image expected one argument
models --image 1024                              | is not WIDTHxHEIGHT in pixels, each of 1 to 99999, such as 1024x768
models --image 0x768                             | --image 0x768 is not WIDTHxHEIGHT
models --image 1024x-768                         | --image 1024x-768 is not WIDTHxHEIGHT
models --image 100000x100000                     | each of 1 to 99999
models --image LONGxLONG                         | is not WIDTHxHEIGHT
methods --all                                    | unrecognized arguments: --all

flops                                            | required: --model
flops --model ''                                 | --model is empty
flops --model llava                              | unknown model 'llava'; did you mean
flops --model /no/such/folder                    | model folder '/no/such/folder' does not exist
flops --model empty                              | empty: no config.json
flops --model of-lists                           | holds no JSON object
flops --model odd-type                           | is of type 'bert'
flops --model no/such                            | 'no/such' are not on this machine
flops --model llava-1.5-7b --reduction 2         | --reduction 2 is not between 0 and 1
flops --model llava-1.5-7b --pruner fastv        | --pruner fastv needs --reduction R
flops --model llava-1.5-7b --pruner fastw        | unknown pruner 'fastw'; did you mean fastv
flops --model llava-1.5-7b --pruner FASTV        | unknown pruner 'FASTV'; did you mean fastv
flops --model llava-1.5-7b --pruner all          | --pruner all needs --reduction R
flops --model llava-1.5-7b --reduction 0.3,0.5   | --reduction 0.3,0.5 is not between 0 and 1
flops --model llava-1.5-7b,llava-next-7b         | unknown model 'llava-1.5-7b,llava-next-7b'
flops --model llava-1.5-7b --pruner ''           | --pruner is empty
flops --model llava-1.5-7b --pruner 'a b'        | unknown pruner 'a b'
flops --model llava-1.5-7b --pruner fastv,,vtw   | has an empty entry
flops --model llava-1.5-7b --pruner fastv+       | has a plus sign with no pruner beside it
flops --model llava-1.5-7b --pruner fastv+fastv --reduction 0.5   | names fastv twice
flops --model llava-1.5-7b --pruner dense+fastv --reduction 0.5   | dense prunes nothing
flops --model llava-1.5-7b --pruner fastv --reduction 0.99        | it reaches
flops --model llava-1.5-7b --recipe no-such.json                  | cannot read the recipe no-such.json
flops --model llava-1.5-7b --recipe list.json                     | list.json is not a recipe
flops --model llava-1.5-7b --recipe tiny.json --pruner fitprune   | this recipe
flops --model llava-1.5-7b --recipe ''           | --recipe is empty
flops --model llava-1.5-7b --recipe published:no@1                | published
flops --model llava-1.5-7b --image tall          | --image tall is not WIDTHxHEIGHT
flops --model llava-1.5-7b --tokens 0            | --tokens 0 is not a whole number of at least 1
flops --model llava-1.5-7b --tokens LONG         | at most 999999999999
flops --model llava-1.5-7b --text -3             | --text -3 is not a whole number of at least 1
flops --model llava-1.5-7b --new 1e3             | --new 1e3 is not a whole number of at least 1

latency                                          | required: --model
latency --model llava-9                          | unknown model 'llava-9'
latency --model llava-tiny --pruner fastw        | unknown pruner 'fastw'
latency --model llava-tiny --pruner fastv+vtw+   | has a plus sign
latency --model llava-tiny --reduction 0.5,1.5   | --reduction 1.5 is not between 0 and 1
latency --model llava-tiny --batch-size 1,0      | --batch-size 0 is not a whole number of at least 1
latency --model llava-tiny --batch-size ''       | --batch-size is empty
latency --model llava-tiny --batch-size 1-4      | --batch-size 1-4 is not a whole number
latency --model llava-tiny --pruner all,fastw    | unknown pruner 'fastw'
latency --model llava-tiny --weights none        | --weights none is not checkpoint or random
latency --model llava-tiny --image-size 5        | --image-size 5 is not WIDTHxHEIGHT
latency --model llava-tiny --text-tokens 0       | --text-tokens 0 is not a whole number
latency --model llava-tiny --new-tokens no       | --new-tokens no is not a whole number
latency --model llava-tiny --repeats 0           | --repeats 0 is not a whole number
latency --model llava-tiny --layers 0            | --layers 0 is not a whole number
latency --model llava-tiny --layers 2            | --layers shortens a model with random weights; add --weights random
latency --model llava-tiny --device auto         | a latency is that of one device
latency --model llava-tiny --device tpu          | unknown device 'tpu'
latency --model llava-tiny --dtype float8 --device cpu --weights random --layers 1 --pruner dense | unknown dtype 'float8'
latency --model llava-tiny -o empty              | cannot write empty: it is a folder
latency --model llava-tiny -o no/such/x.json     | its folder does not exist
latency --model llava-tiny -o a-file/x.json      | its folder does not exist
latency --model llava-tiny -o ''                 | -o is empty
latency --model llava-1.5-7b                     | the weights of 'llava-1.5-7b' are not on this machine

download                                         | one of the arguments NAME --data is required
download ''                                      | an argument is empty
download llava-tiny                              | 'llava-tiny' needs no download
download llava-9                                 | unknown model 'llava-9'
download llava-1.5-7b                            | unset HF_HUB_OFFLINE, and run the command again
download --data                                  | --data expected one argument
download --data ''                               | --data is empty
download --data gqaa                             | unknown suite 'gqaa'; did you mean gqa
download --data gqa,                             | has an empty entry
download llava-1.5-7b --data gqa                 | not allowed with argument
download a b                                     | unrecognized arguments: b
download LONG                                    | unknown model '9999
download ./no-such                               | model folder './no-such' does not exist
download --data mini                             | unknown suite 'mini'
download --data gqa pope                         | not allowed with argument --data
download --data seedbench_ppl                    | compares the likelihoods of given answers
download --model llava-1.5-7b                    | unrecognized arguments: --model

gallery --pruner fastw                           | unknown pruner 'fastw'; did you mean fastv
gallery --pruner dense                           | --pruner names no method that prunes
gallery --pruner ''                              | --pruner is empty
gallery --suite gqaa                             | unknown suite 'gqaa'; did you mean gqa
gallery --model llava-9                          | unknown model 'llava-9'
gallery --reduction 0                            | --reduction 0 is not between 0 and 1
gallery --questions 0                            | --questions 0 is not a whole number of at least 1
gallery --seed -1                                | --seed -1 is not a whole number of at least 0
gallery --results a-file                         | a-file is not a folder
gallery --results ''                             | --results is empty
gallery --data no-such                           | no-such
gallery --data a-file                            | a-file
gallery --data empty                             | empty
gallery --device cuda:x                          | unknown device 'cuda:x'

scenes --canvas 3                                | is not two whole numbers from 1 to 8, such as 1x3
scenes --canvas 0x1                              | is not two whole numbers from 1 to 8
scenes --canvas LONGxLONG                        | is not two whole numbers from 1 to 8
scenes --out a-file                              | cannot write the mini suites to a-file: it is a file
scenes --out a-file/deep                         | a-file is a file
scenes --out ''                                  | --out is empty

report                                           | required: DIR
report ''                                        | an argument is empty
report no-such                                   | results folder no-such does not exist
report s3://bucket/results                        | bring the results at s3://bucket/results here, as aws s3 sync
report .                                         | no results in .
report a-file                                    | a-file
report empty                                     | no results in empty; pytest suites/ --results writes them
report scrap-results                             | x.json is damaged and left out
report of-lists                                  | no results in of-lists
report results --html                            | --html expected one argument
report results --html no/such/site               | cannot write no/such/site/index.html: its folder does not exist
report results --html a-file/x.html              | its folder does not exist
report results --markdown empty                  | cannot write empty: it is a folder
report results --csv ''                          | --csv is empty
report results --csv -                           | it is no name of a file
report results -o x.md                           | unrecognized arguments: -o x.md
report results --html site --format html         | unrecognized arguments: --format html
report results/*.json                            | results folder results/*.json does not exist
report results --csv x.csv --latex no/x.tex      | cannot write no/x.tex: its folder does not exist
report results --csv x --latex x                 | x is named for two outputs
report results --markdown empty.md               | cannot write empty.svg: it is a folder
report results --compare empty                   | no results in empty
report results --compare no-such                 | results folder no-such does not exist
report results --compare results --difficulty    | --difficulty adds to the leaderboard
report results --latex x.tex --difficulty        | --difficulty adds to the leaderboard
report results --csv NAME                        | File name too long
report results more                              | unrecognized arguments: more

paper                                            | required: list|NAME
paper ''                                         | an argument is empty
paper restore                                    | unknown table 'restore'; did you mean restore-2
paper RESTORE-1                                  | unknown table 'RESTORE-1'; did you mean restore-1
paper restore-1.csv                              | unknown table 'restore-1.csv'; did you mean restore-1
paper list restore-1                             | unrecognized arguments: restore-1
paper restore-1 --model llava-tiny --limit 10%           | --limit 10% is not a whole number
paper list --model llava-9                       | no published table is of llava-9
paper restore-1 --model llava-9                  | unknown model 'llava-9'
paper restore-1 --model llava-tiny --suite gqaa  | unknown suite 'gqaa'
paper restore-1 --model llava-tiny --pruner x,   | has an empty entry
paper restore-1 --model llava-tiny --pruner fastw        | unknown pruner 'fastw'
paper restore-1 --model llava-tiny --tokens 63         | has no rows of 63 visual tokens; it has 192, 128, 64
paper fitprune --model llava-tiny --tokens 64          | table fitprune has no rows of 64 visual tokens
paper restore-1 --model llava-tiny --tokens 0          | --tokens 0 is not a whole number of at least 1
paper restore-1 --model llava-tiny --limit 0             | --limit 0 is not a whole number of at least 1
paper restore-1 --model llava-tiny --limit LONG          | at most 999999999999
paper restore-1 --model llava-tiny --batch-size none     | --batch-size none is not a whole number
paper restore-1 --model llava-tiny --results a-file      | a-file is not a folder
paper restore-1 --model llava-tiny -o a-file             | a-file
paper restore-1 --model llava-tiny -o ''                 | -o is empty
paper restore-1 --model llava-tiny --device cuda:99      | device 'cuda:99' is not here
paper restore-1 --model llava-1.5-7b                     | the weights of 'llava-1.5-7b' are not on this machine

tune                                             | required: --model, --suite, --max-drop
tune --model llava-9 --suite gqa --max-drop 5    | unknown model 'llava-9'
tune --model llava-tiny --suite gqaa --max-drop 5            | unknown suite 'gqaa'
tune --model llava-tiny --suite '' --max-drop 5              | --suite is empty
tune --model llava-tiny --suite gqa --max-drop nan           | --max-drop nan is not a number of points
tune --model llava-tiny --suite gqa --max-drop 0             | gqa needs a number of points above 0
tune --model llava-tiny --suite gqa --max-drop pope:5        | pope
tune --model llava-tiny --suite gqa --max-drop 5 --pruner fastw      | unknown pruner 'fastw'
tune --model llava-tiny --suite gqa --max-drop 5 --pruner dense      | --pruner dense: it saves nothing
tune --model llava-tiny --suite gqa --max-drop 5 --reduction 2       | --reduction 2 is not between 0 and 1
tune --model llava-tiny --suite gqa --max-drop 5 --for speed         | --for speed is not flops or latency
tune --model llava-tiny --suite gqa --max-drop 5 --device gpu        | unknown device 'gpu'
tune --model llava-tiny --suite gqa --max-drop 5 --data no-such      | data folder 'no-such' does not exist
tune --model llava-tiny --suite gqa --max-drop 5 --results a-file    | a-file is not a folder
tune --model llava-tiny --suite gqa --max-drop 5 -o empty            | a recipe's name ends in .json
tune --model llava-tiny --suite gqa --max-drop 5 -o no/such/x.json   | its folder does not exist
tune --model llava-tiny --suite mme --max-drop 5                     | is no mean over questions

validity                                         | required: DIR
validity no-such                                 | results folder no-such does not exist
validity empty                                   | no results in empty
validity results --reduction 1                   | --reduction 1 is not between 0 and 1
validity results --reduction often               | --reduction often is not between 0 and 1
validity results --model llava-9                 | unknown model of a printed table 'llava-9'
validity results --tokens 0                      | --tokens 0 is not a whole number of at least 1
validity results --markdown empty                | cannot write empty: it is a folder
validity results --markdown no/such/v.md         | its folder does not exist
validity results                                 | with its own parameters for 64 tokens
validity results --reduction 0.89                | 0.89

completion                                       | required: SHELL
completion fish                                  | fish is not bash, zsh or tcsh
completion bash zsh                              | unrecognized arguments: zsh

pytest --model ''                                | --model is empty
pytest --model llava-9                           | unknown model 'llava-9'
pytest --model llava-tiny,                       | has an empty entry
pytest --model empty                             | empty: no config.json
pytest --pruner fastw                            | unknown pruner 'fastw'; did you mean fastv
pytest --pruner fastv+dense                      | dense prunes nothing
pytest --pruner ''                               | --pruner is empty
pytest --reduction 0.5,2                         | --reduction 2 is not between 0 and 1
pytest --reduction half                          | --reduction half is not between 0 and 1
pytest --pruner dense --reduction 0.5            | --reduction has no effect on --pruner dense
pytest --recipe recipe.json --reduction 0.5      | --recipe and --reduction exclude each other
pytest --recipe recipe.json --pruner fastv       | --recipe is for --pruner fitprune
pytest --recipe no-such.json                     | cannot read the recipe no-such.json
pytest --recipe recipe.json                      | does not fit llava-tiny
pytest --suite gqaa                              | unknown suite 'gqaa'
pytest --suite ,                                 | --suite , has an empty entry
pytest --max-drop much                           | --max-drop much
pytest --max-drop -1                             | --max-drop -1
pytest --max-drop 1,gqaa:2                       | gqaa
pytest --max-drop :1                             | :1 names no suite
pytest --data ''                                  | --data is empty
pytest --max-drop LONG                           | --max-drop
pytest --gate strict                             | --gate strict is not
pytest --positions new                           | --positions new is not authors, kept or repacked
pytest --save a/b                                | --save a/b
pytest --save ..                                 | --save ..
pytest --save x --compare x                      | it would replace what it is compared with
pytest --compare no-such                         | no-such
pytest --compare-fail 1                          | name it with --compare NAME
pytest --compare x --compare-fail latency:much   | --compare-fail
pytest --gate sequential --save x                | need all answers of a run
pytest --limit 0                                 | --limit 0 is not a whole number of at least 1
pytest --limit all                               | --limit all is not a whole number
pytest --batch-size 0                            | --batch-size 0 is not a whole number
pytest --seed -1                                 | --seed -1 is not a whole number of at least 0
pytest --data no-such                            | no-such
pytest --data a-file                             | a-file
pytest --data scrap                              | scrap
pytest --data hub                                | are not on this machine
pytest --results a-file                          | a-file is not a folder
pytest --device cuda:99                          | device 'cuda:99' is not here
pytest --device gpu0                             | unknown device 'gpu0'
pytest --judge ''                                 | --judge is empty
pytest --engine rai                              | unknown --engine 'rai'; write ray, ray:auto or ray://HOST:PORT
pytest --engine ''                               | --engine is empty
pytest --engine ray://host                       | names no HOST:PORT
pytest --engine ray://host:99999                 | names no HOST:PORT
pytest --results s4://bucket/x                   | Protocol not known: s4
pytest --results s3:/bucket/x                    | an address has two slashes
tune --model llava-tiny --suite gqa --max-drop 5 --results s3://bucket/x | name a folder of this machine
gallery --results s3://bucket/x                  | name a folder of this machine
pytest --results file://no/such                  | cannot be written
paper restore-1 --model llava-tiny --results s4://bucket | Protocol not known: s4
"""


def lines():
    """(words, said) of each line of the list."""
    for line in filter(None, INPUTS.splitlines()):
        typed, _, said = line.partition(" | ")
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", typed)]
        stands = {"LONGxLONG": f"{LONG}x{LONG}", "LONG": LONG, "NAME": NAME, "ODD": ODD}
        yield pytest.param([stands.get(word, word.replace("LONG", LONG)) for word in words], said, id=typed.strip())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what can be named wrongly, and the right beside it."""
    here = tmp_path_factory.mktemp("here")
    for name in ("empty", "deep", "of-lists", "of-bytes", "odd-type", "scrap", "columns", "nulls", "paths", "bytes", "numbers"):
        (here / name).mkdir()
    (here / "a-file").write_text("not a folder")
    (here / "empty.png").mkdir()
    (here / "empty.svg").mkdir()
    (here / "of-lists" / "config.json").write_text("[]")
    (here / "of-bytes" / "config.json").write_bytes(b"\xff\xfe\x00")
    (here / "deep" / "config.json").write_text("[" * 100_000)
    (here / "odd-type" / "config.json").write_text('{"model_type": "bert"}')
    for name in ("headless", "truncated"):
        save_tiny(here / name)
    (here / "headless" / "model.safetensors").unlink()
    os.truncate(here / "truncated" / "model.safetensors", 1000)
    (here / "scrap" / "calibration.parquet").write_text("scrap")
    picture, ask = {"bytes": b"no picture", "path": None}, "what?"
    tables = {
        "columns": {"image": [picture]},
        "nulls": {"image": [picture, None], "question": [ask, ask]},
        "paths": {"image": [{"bytes": None, "path": "no/such.png"}], "question": [ask]},
        "bytes": {"image": [picture] * 2, "question": [ask] * 2},
        "numbers": {"image": [picture], "question": [5]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), here / name / "calibration.parquet")
    recipe = Recipe(drop=[0] * 10 + [288] + [0] * 21, visual_tokens=576)
    recipe.save(here / "recipe.json")
    record = json.loads((here / "recipe.json").read_text())
    wrong = {
        "list": [],
        "bare": {"format": record["format"], "version": record["version"]},
        "huge": record | {"drop": [int(LONG)], "visual_tokens": 576},
        "negative": record | {"drop": [-1]},
        "newer": record | {"version": 99},
        "tiny": record | {"drop": [0] * 8, "visual_tokens": 144},
    }
    for name, content in wrong.items():
        (here / f"{name}.json").write_text(json.dumps(content))
    (here / "deep.json").write_text("[" * 100_000)
    (here / "scrap-results").mkdir()
    (here / "scrap-results" / "x.json").write_text("{")
    put(Store(here / "results"), "fastv", [1.0, 0.0])
    return here


def suites(words):
    """What pytest suites/ does with its options before it collects anything."""
    parser = argparse.ArgumentParser()
    for option in OPTIONS:
        action = {"action": "append" if option.repeatable else "store"} if option.metavar else {"action": "store_true"}
        parser.add_argument(f"--{option.name}", dest=DEST + option.field, **action)

    def check():
        RunOptions.parse(parser.parse_args(words)).expanded().choosing().check(["gqa"])

    return exit_status(check)


@pytest.mark.parametrize(("words", "said"), lines())
def test_bad_input_is_one_line(words, said, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = files(place)
    status = suites(words[1:]) if words[0] == "pytest" else main(words)
    out, err = capsys.readouterr()
    assert status == 2
    *notes, line = err.splitlines()
    assert said in line
    assert line.startswith("error: ")
    assert len(line) < 700
    assert out == ""
    assert [note for note in notes if ": llava" not in note] == []  # which model a family's name stands for
    assert files(place) == before


def files(place):
    return {path for path in place.rglob("*") if STATISTICS not in str(path)}


def test_the_list_is_long():
    assert len(list(lines())) >= 200
