"""Which parquet files are a subset and a split: by the card, by folder, by name."""

import re
from typing import Any

import pytest

from transformer.data.hub.files import NoSuchSubset, choose, folders

FINEWEB = [
    {"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]},
    {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
    {"config_name": "sample-100BT", "data_files": [{"split": "train", "path": "sample/100BT/*"}]},
]
PATHS = [
    "README.md",
    "data/CC-MAIN-2013-20/train-00000-of-00002.parquet",
    "data/CC-MAIN-2013-20/train-00001-of-00002.parquet",
    "sample/100BT/000_00000.parquet",
    "sample/10BT/001_00000.parquet",
    "sample/10BT/000_00000.parquet",
]
TEN = ["sample/10BT/000_00000.parquet", "sample/10BT/001_00000.parquet"]


def test_the_card_names_the_files_of_a_subset() -> None:
    assert choose(PATHS, FINEWEB, "sample-10BT", "train") == TEN
    assert choose(PATHS, FINEWEB, None, "train") == PATHS[1:3]


def test_without_a_card_the_folder_names_the_subset() -> None:
    assert choose(PATHS, [], "sample-10BT", "train") == TEN
    assert choose(PATHS, [], "sample/10BT", "train") == TEN
    assert choose(PATHS, [], "10BT", "train") == TEN
    assert choose(PATHS, FINEWEB, "CC-MAIN-2013-20", "train") == PATHS[1:3]


def test_no_subset_is_every_file_where_the_card_lists_none() -> None:
    assert choose(["b.parquet", "x/a.parquet"], [], None, "train") == ["b.parquet", "x/a.parquet"]
    assert choose(["b.parquet", "x/a.parquet"], [], "default", "train") == ["b.parquet", "x/a.parquet"]


def test_no_subset_is_the_default_one_or_the_only_one() -> None:
    both: list[dict[str, Any]] = [{"config_name": "a", "data_files": "a*"}, {"config_name": "b", "data_files": "b*"}]
    assert choose(["a.parquet", "b.parquet"], [both[0], {**both[1], "default": True}], None, "train") == ["b.parquet"]
    assert choose(["a.parquet", "b.parquet"], [both[0]], None, "train") == ["a.parquet"]
    assert choose(["a.parquet", "b.parquet"], [{"data_files": "b*"}, *both], None, "train") == ["b.parquet"]
    with pytest.raises(NoSuchSubset, match="several subsets and no default one: choose one of a, b"):
        choose(["a.parquet", "b.parquet"], both, None, "train")


@pytest.mark.parametrize(
    ("paths", "split", "wanted"),
    [
        (["train-00000-of-00002.parquet", "test-00000-of-00001.parquet"], "test", ["test-00000-of-00001.parquet"]),
        (["train/0000.parquet", "test/0000.parquet"], "train", ["train/0000.parquet"]),
        (["data/train-a.parquet", "data/dev-a.parquet"], "dev", ["data/dev-a.parquet"]),
        (["en/train/0.parquet", "en/validation/0.parquet"], "validation", ["en/validation/0.parquet"]),
        (
            ["test/train-0.parquet", "test/test-0.parquet"],
            "train",
            ["test/train-0.parquet"],
        ),  # the file's name is nearer
        (["all_train_0.parquet", "all_test_0.parquet"], "train", ["all_train_0.parquet"]),
        (["constraint/0.parquet", "latest.parquet"], "train", ["constraint/0.parquet", "latest.parquet"]),
        (["train_sft-0.parquet", "test_sft-0.parquet"], "train_sft", ["train_sft-0.parquet"]),
    ],
)
def test_names_determine_the_split(paths: list[str], split: str, wanted: list[str]) -> None:
    assert choose(paths, [], None, split) == wanted


def test_a_subset_named_like_a_split_is_not_taken_for_one() -> None:
    assert choose(["dev/0.parquet", "dev/1.parquet"], [], "dev", "train") == ["dev/0.parquet", "dev/1.parquet"]


@pytest.mark.parametrize(
    ("data_files", "split", "wanted"),
    [
        ("x/*.parquet", "train", ["x/a.parquet"]),
        (["x/*", "z.parquet"], "train", ["x/a.parquet", "z.parquet"]),
        ([{"split": "train", "path": ["x/?.parquet", "z*"]}], "train", ["x/a.parquet", "z.parquet"]),
        ([{"split": "train", "path": "x/*"}, {"split": "eval", "path": "z.parquet"}], "eval", ["z.parquet"]),
        ("**", "train", ["x/a.parquet", "x/y/b.parquet", "z.parquet"]),
        ("**/*.parquet", "train", ["x/a.parquet", "x/y/b.parquet", "z.parquet"]),
        ("x/**/b.parquet", "train", ["x/y/b.parquet"]),
        ("x/**", "train", ["x/a.parquet", "x/y/b.parquet"]),
        ("./x/[!b].parquet", "train", ["x/a.parquet"]),
        ("[xz].parquet", "train", ["z.parquet"]),
    ],
)
def test_patterns_of_a_card(data_files: Any, split: str, wanted: list[str]) -> None:
    paths = ["x/a.parquet", "x/y/b.parquet", "z.parquet", "x/c.json", "zparquet"]
    assert choose(paths, [{"config_name": "default", "data_files": data_files}], None, split) == wanted


def test_a_card_that_gives_a_folder_leaves_the_split_to_the_names() -> None:
    configs = [{"config_name": "en", "data_dir": "text/en"}]
    paths = ["text/en/train.parquet", "text/en/test.parquet", "text/english/train.parquet", "train.parquet"]
    assert choose(paths, configs, "en", "test") == ["text/en/test.parquet"]
    assert folders(configs, "en", "test") == ["text/en"]
    inside = [{"config_name": "en", "data_dir": "text/en", "data_files": "train*"}]
    assert choose(paths, inside, None, "train") == ["text/en/train.parquet"]


@pytest.mark.parametrize(
    ("subset", "split", "message"),
    [
        (
            "sampel-10BT",
            "train",
            "no subset 'sampel-10BT'; its subsets: default, sample-10BT, sample-100BT; did you mean",
        ),
        ("sample-10BT", "test", "no split 'test' in subset 'sample-10BT'; its splits: train"),
        ("CC-MAIN-2013-20", "test", "no parquet file for split 'test'; its splits: train"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(subset: str, split: str, message: str) -> None:
    with pytest.raises(NoSuchSubset, match=re.escape(message)):
        choose(PATHS, FINEWEB, subset, split)


def test_what_is_not_there_without_a_card() -> None:
    with pytest.raises(
        NoSuchSubset, match="no subset '20BT'; its subsets: data/CC-MAIN-2013-20, sample/100BT, sample/10"
    ):
        choose(PATHS, [], "20BT", "train")
    with pytest.raises(NoSuchSubset, match="no parquet files"):
        choose(["train.jsonl"], [], "en", "train")
    with pytest.raises(NoSuchSubset, match=r"no parquet file for split 'train' where its card says: \*\.json"):
        choose(["train.json", "a.parquet"], [{"data_files": "*.json"}], None, "train")
    with pytest.raises(NoSuchSubset, match="no parquet file for split 'train'; its splits: test"):
        choose(["test-0.parquet"], [], None, "train")


def test_a_long_list_is_cut_and_says_so() -> None:
    configs = [{"config_name": f"CC-{number}", "data_files": "x"} for number in range(100)]
    with pytest.raises(NoSuchSubset, match="CC-11 and 88 more"):
        choose(PATHS, configs, "none", "train")


def test_only_the_folders_that_patterns_can_reach_need_be_listed() -> None:
    assert folders(FINEWEB, "sample-10BT", "train") == ["sample/10BT"]
    assert folders(FINEWEB, None, "train") == ["data"]
    assert folders(FINEWEB, "CC-MAIN-2013-20", "train") == [""]
    assert folders([{"data_files": ["a/b/c.parquet", "train-*"]}], None, "train") == ["", "a/b"]
