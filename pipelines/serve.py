"""What `serve run` starts, from a checkout: the endpoint of wanray.

serve run pipelines.serve:build model.path=/weights/Wan2.2-TI2V-5B output.url=s3://bucket/online
"""

from wanray.engine.endpoint.app import build

__all__ = ["build"]
