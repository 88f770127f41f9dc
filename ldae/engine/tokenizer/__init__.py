# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that are fitted or trained, and the latents that they give, cached."""
