"""Packaging: the rooms as top-level packages, requirements read from requirements/*.in, one console script."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIREMENTS = Path(__file__).parent / "requirements"


def requirements(name: str) -> list[str]:
    """The lines of one requirements file; files it refers to are read in."""
    lines = [line.partition("#")[0].strip() for line in (REQUIREMENTS / name).read_text().splitlines()]
    found: list[str] = []
    for line in filter(None, lines):
        found += requirements(line.split()[1]) if line.startswith("-r ") else [line]
    return found


def beside(name: str) -> list[str]:
    """What an extra adds to the base."""
    return [line for line in requirements(name) if line not in requirements("base.in")]


setup(
    name="deepintuit",
    version="0.1.0",
    description="Batch offline scoring of videos on a data lake, by reasoning traces and a calibrator",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["conf*", "jobs*", "lake*", "models*", "schemas*", "udfs*"]),
    package_data={"conf": ["*.yaml", "labels/*.yaml", "spark/*"], "models.handwriting": ["checkpoint/*"]},
    install_requires=requirements("base.in"),
    extras_require={
        "cpu": beside("cpu.in"),
        "gpu": beside("gpu.in"),
        "petastorm": beside("petastorm.in"),
        "dev": beside("dev.in"),
    },
    entry_points={"console_scripts": ["deepintuit=jobs.runtime.cli:entry"]},
)
