// Finds a model by its Hub name on this machine. Nothing is ever downloaded.
#pragma once

#include <filesystem>
#include <string>

namespace medvqa::io {

// A folder (returned as it is), or "Organisation/Name" in the local Hugging Face cache:
// $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
// ~/.cache/huggingface/hub; models--ORG--NAME/refs/main names the snapshot.
// UserError(ExitCode::model) otherwise, with the command that downloads it.
std::filesystem::path find_model_folder(const std::string& path_or_hub_id);

}  // namespace medvqa::io
