"""Tag images with a WD14 tagger, or any tagger of SmilingWolf or cella110n that is published as ONNX.

python finetune/tag_images_by_wd14_tagger.py train_data --batch_size 4 --remove_underscore
"""
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script is run by its path, from any folder

from library.config.declare import option
from library.config.tool import positional, run_tool
from library.preparation.describing import describe_images
from library.preparation.images import find_images, with_dot
from library.preparation.tag_targets import TagFiles, TagMetadata, TagTarget, check_separator
from library.preparation.tag_text import ORDER, TagRules, comparable_tags, read_replacements, tag_chooser


@dataclass(frozen=True, kw_only=True)
class TagImagesOptions:
    """Tag images with a WD14 tagger, or any tagger of SmilingWolf or cella110n that is published as ONNX."""

    train_data_dir: str = positional("Folder of the images.")
    repo_id: str = option("SmilingWolf/wd-v1-4-convnext-tagger-v2", "The tagger on the Hugging Face hub, as owner/name[/folder].")
    model_dir: str = option("wd14_tagger_model", "Folder with model.onnx and its list of tags, or where taggers are kept.")
    force_download: bool = option(False, "Download the tagger even if it is there.")
    batch_size: int = option(1, "Images that the tagger looks at together.", least=1)
    max_data_loader_n_workers: int | None = option(None, "Threads that read images; left out, one for each core.", least=0)
    output_path: str | None = option(None, "Write one metadata file (.json or .jsonl) instead of a tag file for each image.")
    caption_extension: str = option(".txt", "Extension of the tag files.")
    thresh: float = option(0.35, "Least confidence of a tag.", least=0, most=1)
    general_threshold: float | None = option(None, "The same for tags of what is seen; left out, it is thresh.", least=0, most=1)
    character_threshold: float | None = option(None, "The same for characters' names.", least=0, most=1)
    meta_threshold: float | None = option(None, "The same for tags about the image as such.", least=0, most=1)
    model_threshold: float | None = option(None, "The same for names of image models.", least=0, most=1)
    copyright_threshold: float | None = option(None, "The same for names of series and works.", least=0, most=1)
    artist_threshold: float | None = option(None, "The same for artists' names.", least=0, most=1)
    recursive: bool = option(False, "Search the folders below train_data_dir, too.")
    remove_underscore: bool = option(False, "Write spaces instead of underscores (faces such as ^_^ keep theirs).")
    debug: bool = option(False, "Print each image with its tags.")
    undesired_tags: str = option("", "Tags that are left out, separated by commas.")
    frequency_tags: bool = option(False, "At the end, print how many images have each tag.")
    onnx: bool = option(False, "The tagger is always run in its ONNX form; this changes nothing.")
    append_tags: bool = option(False, "Put new tags behind those that an image has already.")
    use_rating_tags: bool = option(False, "Write the rating as the first tag.")
    use_rating_tags_as_last_tag: bool = option(False, "Write the rating as the last tag.")
    use_quality_tags: bool = option(False, "Write the quality as the first tag, if the tagger knows it.")
    use_quality_tags_as_last_tag: bool = option(False, "Write the quality as the last tag, if the tagger knows it.")
    character_tags_first: bool = option(False, "Write characters' names before the other tags.")
    always_first_tags: str | None = option(None, "Tags that come first wherever they are found, separated by commas: 1girl,1boy.")
    caption_separator: str = option(", ", "What is written between tags.")
    tag_replacement: str | None = option(
        None, r"Write other tags: old,new;old,new. A comma or semicolon within a tag is written \, or \;."
    )
    character_tag_expand: bool = option(False, "Write name_(series) as two tags: name, series.")


def tag_images(options: TagImagesOptions) -> None:
    rules = _rules(options)
    check_separator(options.caption_separator)
    with _target(options) as target:
        images = target.missing()
        if images:
            _tag(images, target, rules, options)
    if options.frequency_tags:
        _print_frequencies(target)


def _rules(options: TagImagesOptions) -> TagRules:
    thresholds = {category: getattr(options, f"{category}_threshold") for category in ORDER}
    kinds = {
        "rating": (options.use_rating_tags, options.use_rating_tags_as_last_tag),
        "quality": (options.use_quality_tags, options.use_quality_tags_as_last_tag),
    }
    return TagRules(
        thresholds={category: options.thresh if given is None else given for category, given in thresholds.items()},
        first=tuple(kind for kind, (first, last) in kinds.items() if first and not last),
        last=tuple(kind for kind, (_, last) in kinds.items() if last),
        character_tags_first=options.character_tags_first,
        remove_underscore=options.remove_underscore,
        character_tag_expand=options.character_tag_expand,
        replacements=read_replacements(options.tag_replacement),
        undesired=frozenset(comparable_tags(options.undesired_tags)),
        always_first=comparable_tags(options.always_first_tags),
    )


def _target(options: TagImagesOptions) -> TagTarget:
    extension = with_dot(options.caption_extension)
    tree = find_images(options.train_data_dir, options.recursive)
    if options.output_path is None:
        return TagFiles(tree, extension, options.caption_separator, options.append_tags)
    return TagMetadata(tree, Path(options.output_path), options.caption_separator, options.append_tags)


def _tag(images: list[Path], target: TagTarget, rules: TagRules, options: TagImagesOptions) -> None:
    from library.preparation.tagger import Tagger, TaggerInput, tagger_folder

    tagger = Tagger(tagger_folder(options.repo_id, options.model_dir, options.force_download))
    choose = tag_chooser(tagger.labels, rules)
    if tagger.batch_size not in (None, options.batch_size):
        print(f"this tagger takes batches of {tagger.batch_size} only")

    def describe(batch: list[TaggerInput]) -> list[tuple[list[str], tuple[int, int]]]:
        return [(choose(row), image.size) for row, image in zip(tagger.probabilities(batch), batch, strict=True)]

    def keep(image: Path, found: tuple[list[str], tuple[int, int]]) -> None:
        target.keep(image, *found)
        if options.debug:
            print(f"{image}: {options.caption_separator.join(found[0])}")

    batch_size = tagger.batch_size or options.batch_size
    describe_images(images, tagger.load, describe, keep, batch_size, options.max_data_loader_n_workers, "tagging")


def _print_frequencies(target: TagTarget) -> None:
    counts = Counter(tag for tags in target.all_tags() for tag in dict.fromkeys(tags))
    for tag, count in counts.most_common():
        print(f"{count}\t{tag}")


if __name__ == "__main__":
    run_tool(TagImagesOptions, tag_images)
