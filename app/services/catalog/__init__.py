"""The models of the providers: list them, choose the default model, and explain why a model is missing.

Use :class:`~app.services.catalog.offers.Offers` for a provider of any kind, and
:class:`~app.services.catalog.provider_check.ProviderCheck` to test a provider.
"""

from app.services.catalog.offers import Offers
from app.services.catalog.provider_check import ProviderCheck

__all__ = ["Offers", "ProviderCheck"]
