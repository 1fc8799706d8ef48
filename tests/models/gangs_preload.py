"""What a rank imports, for the fork server of `gangs`."""

from gangs import be_rank

from wanray.models.xdit import import_xfuser

import_xfuser("cpu")
__all__ = ["be_rank"]
