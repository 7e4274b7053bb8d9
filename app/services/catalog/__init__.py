"""The models of the providers: which there are, which one answers by default, what to say of an absent one.

:class:`~app.services.catalog.offers.Offers` is the face, for every kind of provider;
:class:`~app.services.catalog.provider_check.ProviderCheck` tests a provider.
"""

from app.services.catalog.offers import Offers
from app.services.catalog.provider_check import ProviderCheck

__all__ = ["Offers", "ProviderCheck"]
