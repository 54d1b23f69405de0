"""How Hydra reads config files here: through the checks of yaml_files.py, and a sweep file wherever it lies."""

import copy
import io
import os
from functools import lru_cache
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, ListConfig, OmegaConf

from lmexp.config.yaml_files import shown, yaml_text
from lmexp.errors import UserError

GROUP, CHOICE = "sweep_file", "this"
"""The group and the choice in it under which Hydra sees a sweep file: neither its name nor its folder's is in an
override, so both may have any letters."""


@lru_cache(maxsize=512)
def _parsed(text: str) -> DictConfig | ListConfig:
    """Return the content of a file, which is parsed once: each choice of groups reads two dozen files."""
    return OmegaConf.load(io.StringIO(text))


class CheckedFiles(FileConfigSource):
    """A folder of config files, each checked before Hydra reads it."""

    @staticmethod
    def scheme() -> str:
        """Return what its addresses start with."""
        return "checked"

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file. Raises UserError, with file and line, for one that cannot be read."""
        file = Path(os.path.realpath(Path(self.path, self._normalize_file_name(config_path))))
        text = yaml_text(file)
        try:
            header = ConfigSource._get_header_dict(text[:512])
        except ValueError as error:
            raise UserError(f"{shown(file)}: the comment at its top, `# @package ...`: {error}") from None
        config = copy.deepcopy(_parsed(text))  # Hydra changes what it gets
        return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)


class SweepFile(CheckedFiles):
    """A sweep file: CHOICE of the group GROUP, which is the file's folder; what lies beside the folder is there too."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._file = Path(self.path)
        self.path = str(self._file.parent.parent)

    @staticmethod
    def scheme() -> str:
        """Return what its addresses start with."""
        return "sweep-file"

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file, as CheckedFiles does."""
        return super().load_config(self._real(config_path))

    def is_group(self, config_path: str) -> bool:
        """Return whether there is such a folder."""
        return super().is_group(self._real(config_path))

    def is_config(self, config_path: str) -> bool:
        """Return whether there is such a file."""
        return super().is_config(self._real(config_path))

    def _real(self, config_path: str) -> str:
        if config_path == f"{GROUP}/{CHOICE}":
            return f"{self._file.parent.name}/{self._file.name}"
        group, slash, name = config_path.partition("/")
        return f"{self._file.parent.name}{slash}{name}" if group == GROUP else config_path


for source in (CheckedFiles, SweepFile):
    SourcesRegistry.instance().register(source)
