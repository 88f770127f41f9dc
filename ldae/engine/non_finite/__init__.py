# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss or gradient is not finite: skipped, recorded, and repeated to find where it began."""
