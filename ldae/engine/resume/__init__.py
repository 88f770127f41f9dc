# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole, and runs that go on from them as if they had not stopped."""
