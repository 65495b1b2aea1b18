"""Locked files for other machines and tools: mirrors, bundles, images, exports."""
