"""The stages of the data flow: extend, encode, denoise, decode. A config in, records in, records out; no Ray."""
