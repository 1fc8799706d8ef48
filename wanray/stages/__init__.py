"""The stages of the data flow: extend, encode, denoise, decode. Config in, records in and out; no Ray."""
