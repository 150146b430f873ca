"""Networks, losses and training steps. Knows no files and no commands.

Every model stands here under the address that configurations, runs and bundles hold, as
``foldnorm.models.WGANGP``; its module is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
