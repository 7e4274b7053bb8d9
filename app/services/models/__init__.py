"""List, load, create and delete the models that are installed on an Ollama server.

Services in other packages use ``VersionService`` and ``VersionStore`` (former versions of models) and
``ModelUses`` (the last use of each model). Only the views use the other classes.
"""

from app.services.models.create import CreationService
from app.services.models.delete import RemovalService
from app.services.models.disk import DiskService
from app.services.models.installed import InstalledModels, LastModels
from app.services.models.memory import MemoryService
from app.services.models.protection import Protection
from app.services.models.upload import UploadService
from app.services.models.uses import ModelUses
from app.services.models.versions import VersionService, VersionStore

__all__ = [
    "CreationService",
    "DiskService",
    "InstalledModels",
    "LastModels",
    "MemoryService",
    "ModelUses",
    "Protection",
    "RemovalService",
    "UploadService",
    "VersionService",
    "VersionStore",
]
