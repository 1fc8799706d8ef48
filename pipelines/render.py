"""What `ray job submit --working-dir . -- python pipelines/render.py CONFIG [key=value ...]` runs."""

import sys

from wanray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["render"]
    main()
