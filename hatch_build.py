"""The list of pinned packages (SBOM) that the wheel carries, as CycloneDX JSON (PEP 770).

It is written from pyproject.toml and constraints.txt alone, so the same two files give the same bytes. It says with
which versions lmexp is developed and tested; an installation without `--constraint` may have others. The build
environment has only hatchling and what it requires, packaging among them, so this file imports nothing else.
"""

import json
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SBOM = "lmexp.cdx.json"
SPEC_VERSION = "1.6"


def named(requirements: list[str]) -> set[str]:
    """Return the packages that requirements such as `torch>=2.8` or `moto[s3]>=5` name, without lmexp itself."""
    return {canonicalize_name(Requirement(each).name) for each in requirements} - {"lmexp"}


def sbom(root: Path, version: str) -> dict[str, Any]:
    """Return the document.

    A package that lmexp requires has the scope `required`, one that an extra names `optional`; the others are
    required by one of these. Which one is not known from the two files, and the document says so.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = named(project["dependencies"])
    optional = named([each for extra in project["optional-dependencies"].values() for each in extra]) - required
    pins = [line.split("==") for line in (root / "constraints.txt").read_text(encoding="utf-8").split()]
    components = []
    for name, pinned in sorted((canonicalize_name(name), pinned) for name, pinned in pins):
        component = {"type": "library", "name": name, "version": pinned, "purl": f"pkg:pypi/{name}@{pinned}"}
        component["bom-ref"] = component["purl"]
        if name in required | optional:
            component["scope"] = "required" if name in required else "optional"
        components.append(component)
    ours = f"pkg:pypi/lmexp@{version}"
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "library",
                "name": "lmexp",
                "version": version,
                "purl": ours,
                "bom-ref": ours,
                "licenses": [{"license": {"id": project["license"]}}],
            },
        },
        "components": components,
        "dependencies": [
            {"ref": ours, "dependsOn": [each["purl"] for each in components if each["name"] in required]},
        ],
        "compositions": [{"aggregate": "incomplete", "dependencies": [each["purl"] for each in components]}],
    }


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Adds the document to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the document where hatchling takes it from."""
        if self.target_name != "wheel":
            return
        self._folder = Path(tempfile.mkdtemp())
        document = json.dumps(sbom(Path(self.root), self.metadata.version), indent=2) + "\n"
        (self._folder / SBOM).write_text(document, encoding="utf-8")
        build_data["sbom_files"].append(str(self._folder / SBOM))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove it once it is in the wheel."""
        if self.target_name == "wheel":
            shutil.rmtree(self._folder)
