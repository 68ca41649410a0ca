"""Clean the captions and tags of a metadata file by the rules in clean_rules.toml.

python finetune/clean_captions_and_tags.py meta.json meta_clean.json
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from tqdm import tqdm

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.preparation.clean_rules import read_rules
from library.preparation.cleaning import clean_caption, clean_tags
from library.preparation.metadata_file import check_writable, read_metadata, read_sources, write_metadata

RULES = "clean_rules.toml"


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """Clean the captions and tags of a metadata file by the rules in clean_rules.toml.

    The rules beside the metadata file are used if there are any, else those beside this script.
    """

    in_json: str = positional("Metadata file to read.")
    out_json: str = positional("Metadata file to write; if it exists it is completed and kept as .bak.")
    debug: bool = option(False, "Print each caption and each list of tags that is changed.")


def clean(options: CleanOptions) -> None:
    out = Path(options.out_json)
    check_writable(out)
    images = read_metadata(Path(options.in_json)).keys()
    entries = read_sources(options.in_json, options.out_json)
    rules_file = Path(options.in_json).with_name(RULES)
    if not rules_file.is_file():
        rules_file = Path(__file__).with_name(RULES)
    rules = read_rules(rules_file)
    changed = 0
    for key in tqdm(images, desc="cleaning", unit="image"):
        for field, clean_text in (("caption", clean_caption), ("tags", clean_tags)):
            before = entries[key].get(field)
            if before is None:
                continue
            after = entries[key][field] = clean_text(before, rules)
            changed += before != after
            if options.debug and before != after:
                print(f"{key} {field}: {before!r} -> {after!r}")
    write_metadata(out, entries)
    print(f"{out}: {changed} captions and lists of tags changed, by the rules of {rules_file}")


if __name__ == "__main__":
    run_tool(CleanOptions, clean)
